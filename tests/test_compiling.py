"""Tests compile on versions of XLA that lack an option."""

from __future__ import annotations

import jax

from tests.compiling import SIMPLE, compile_quickly, known


def test_options_that_xla_does_not_know_are_left_out() -> None:
  wrong = {"xla_of_a_version_to_come": True, "xla_backend_optimization_level": 0}
  assert known(wrong) == {"xla_backend_optimization_level": 0}
  assert known({"xla_backend_optimization_level": "all of it"}) == {}
  assert set(known(SIMPLE)) <= set(SIMPLE)


def test_what_was_compiled_quickly_runs() -> None:
  assert compile_quickly(jax.jit(lambda x: 2 * x).lower(3.0))(3.0) == 6
