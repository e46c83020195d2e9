"""The term of one's own in docs/objective.md is a term."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from xjepa_jax.model.outputs import Outputs
from xjepa_jax.objective.table import TERMS, build

PAGE = (Path(__file__).parents[2] / "docs" / "objective.md").read_text()


def test_the_page_s_own_term_is_what_it_says(
  outputs: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  (code,) = re.findall(r"```python\n(import dataclasses.*?)```", PAGE, re.DOTALL)
  (tmp_path / "term_of_the_page.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  term = importlib.import_module("term_of_the_page").Length
  objective = build({"length": {"length": 2, "weight": 0.5}}, {"length": term})
  found = jax.jit(objective.loss)({}, outputs, 0, jax.random.key(0))[1]["loss/length"]
  expected = [
    np.mean((np.linalg.norm(values[outputs.present[sensor]], axis=1) - 2) ** 2)
    for sensor, values in outputs.descriptors["layout"].items()
  ]
  np.testing.assert_allclose(found, np.mean(expected), rtol=1e-4)


def test_the_page_lists_every_term() -> None:
  assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(TERMS)
