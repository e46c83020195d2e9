"""What the compiled step sends, against a file and against what cannot be avoided.

RENEW_GOLDEN=1 python -m pytest tests/scaling/test_collectives.py   # accepts what there is now
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import jax
import pytest

from tests.compiling import SIMPLE, known
from tests.scaling.conftest import GOLDEN, LAYOUTS, compare_with_golden, debug_config
from xjepa_jax.model import trunk
from xjepa_jax.scaling.blueprint import blueprint, slots_of
from xjepa_jax.scaling.collectives import Collective, by_axes, expected, wire_bytes
from xjepa_jax.scaling.hlo import collectives
from xjepa_jax.scaling.lowering import compile_step
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.mesh import make_mesh
from xjepa_jax.training.plan import abstract_batch, device_bytes
from xjepa_jax.training.target import find_target

LAST = 0.01  # share of all bytes from which a kind of collective is in the file
NEAR = 0.05


def opened(layout: tuple[int, int, int]) -> Experiment:
  config = debug_config(layout)
  return blueprint(config, make_mesh(*layout), slots_of(config)[0], "gpu")


def compiled(experiment: Experiment) -> tuple[Any, list[Collective]]:
  found = compile_step(experiment, "gpu", known(SIMPLE))
  return found, collectives(found.as_text(), dict(experiment.mesh.shape))


def theory(experiment: Experiment) -> float:
  state = experiment.abstract_state()
  least = expected(state.params, find_target(state.opt_state), dict(experiment.mesh.shape), 4)
  return sum(each.wire for each in least)


@pytest.fixture(scope="module", params=LAYOUTS)
def step(request: pytest.FixtureRequest) -> tuple[str, Experiment, Any, list[Collective]]:
  experiment = opened(LAYOUTS[request.param])
  return request.param, experiment, *compiled(experiment)


def test_the_compiled_step_sends_what_the_file_says(
  step: tuple[str, Experiment, Any, list[Collective]],
) -> None:
  """Kinds of collectives by axes. Their bytes may differ a little between versions of XLA."""
  name, _, _, found = step
  total = sum(each.wire for each in found)
  kinds = {
    f"{'+'.join(axes)} {op}": each.wire
    for (axes, op), each in by_axes(found).items()
    if each.wire > LAST * total
  }
  path = GOLDEN / f"collectives_{name.replace(' ', '_')}.txt"
  old = dict(line.rsplit(" ", 1) for line in path.read_text().splitlines()) if path.exists() else {}
  close = {
    kind: old[kind] if abs(wire - float(old.get(kind, 0))) < NEAR * wire else f"{wire:.0f}"
    for kind, wire in kinds.items()
  }
  compare_with_golden(path.name, [f"{kind} {wire}" for kind, wire in sorted(close.items())])


def test_no_more_is_sent_than_parameters_and_gradients_need(
  step: tuple[str, Experiment, Any, list[Collective]],
) -> None:
  _, experiment, _, found = step
  if experiment.mesh.shape["tensor"] > 1:
    pytest.skip("with a tensor axis, activations are summed too")
  assert sum(each.wire for each in found) <= (1 + NEAR) * theory(experiment)


def test_no_activation_and_no_batch_is_gathered(
  step: tuple[str, Experiment, Any, list[Collective]],
) -> None:
  """But for the scores that masks are drawn by: XLA's top_k is not divided on CPUs."""
  _, experiment, _, found = step
  # Parameters lie along `fsdp` alone: a gather over `replica` is of samples.
  gathered = [each for each in found if each.op == "all-gather" and "replica" in each.axes]
  others = sum(each.wire for each in gathered if "top_k" not in each.at)
  assert others < 1e-3 * sum(each.wire for each in found)
  rows = experiment.config.training.batch
  scores = [each for each in found if "top_k" in each.at]
  assert sum(each.size * each.count for each in scores) <= 4 * 4 * rows * 2 * 16


def test_the_state_that_was_compiled_is_as_large_as_it_was_counted(
  step: tuple[str, Experiment, Any, list[Collective]],
) -> None:
  _, experiment, executable, _ = step
  counted = device_bytes(experiment.abstract_state())
  needed = executable.memory_analysis()
  batch = device_bytes(abstract_batch(experiment))
  # Up to padding of every array to 64 bytes.
  leaves = len(jax.tree.leaves(experiment.abstract_state())) + 8
  assert 0 <= needed.argument_size_in_bytes - counted - batch <= 64 * leaves
  assert 0 <= needed.alias_size_in_bytes - counted <= 64 * leaves


def test_an_accident_is_seen() -> None:
  """Samples not held in place: the partitioner sums activations instead of gathering weights."""
  experiment = opened(LAYOUTS["fsdp"])
  with mock.patch.object(trunk, "keep_samples", lambda x: x):
    _, found = compiled(experiment)
  assert sum(each.wire for each in found) > 1.2 * theory(experiment)
  in_loops = [each for each in found if each.op == "all-reduce" and each.count > 1]
  assert any("dot_general" in each.at for each in in_loops)


def test_bytes_of_a_ring() -> None:
  """Against a ring carried out step by step: each device passes one of n pieces on, n - 1 times."""
  n, size = 8, 1024.0
  passed = sum(size / n for _ in range(n - 1))
  assert wire_bytes("all-gather", size, n) == wire_bytes("reduce-scatter", size, n) == passed
  assert wire_bytes("all-reduce", size, n) == 2 * passed
  assert wire_bytes("collective-permute", size, 2) == size
