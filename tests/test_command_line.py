"""Single keys of a config on the command line, also those that its file does not list."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# What the main program does with its arguments before it runs anything.
SCRIPT = """
import json, sys
from xjepa_jax import command_line, main
from xjepa_jax.config import resolve, to_dict
from xjepa_jax.errors import ConfigError
from xjepa_jax.objective.table import build
try:
  command_line.parse(sys.argv)
  config = resolve(main._CONFIG.value)
  build(config.objective)
  print(json.dumps(to_dict(config)))
except ConfigError as error:
  print(json.dumps({"error": str(error)}))
"""
FILE = """
from xjepa_jax.config import default_config

def get_config():
  config = default_config()
  config.heads.semantic = {"pooling": "mean", "size": 32}
  config.objective = {"latent": {"weight": 2.0}, "spread": {"term": "sigreg", "on": "layout"}}
  return config
"""


@pytest.fixture
def parsed(tmp_path: Path) -> Any:
  """parsed("objective.latent.beta=2") -> the resolved config as a dict, or {"error": ...}."""
  (tmp_path / "config.py").write_text(FILE)

  def parse(*keys: str) -> Any:
    arguments = [f"--config={tmp_path / 'config.py'}", *(f"--config.{key}" for key in keys)]
    ended = subprocess.run(
      [sys.executable, "-c", SCRIPT, *arguments],
      cwd=ROOT,
      capture_output=True,
      text=True,
      timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)

  return parse


def test_options_that_a_config_does_not_list_can_be_set(parsed: Any) -> None:
  found = parsed(
    "objective.latent.distance=smooth_l1",
    "objective.latent.beta=2",
    "objective.latent.routes=('a->b','b->a')",
    "objective.spread.term=vicreg",
    "objective.spread.invariance=0",
    "objective.spread.over=cells",
    "heads.semantic.hidden=64",
    "heads.semantic.prefixes=(8,16)",
  )
  assert found["objective"] == {
    "latent": {"weight": 2.0, "distance": "smooth_l1", "beta": 2.0, "routes": ["a->b", "b->a"]},
    "spread": {"term": "vicreg", "on": "layout", "invariance": 0.0, "over": "cells"},
  }
  assert found["heads"]["semantic"]["hidden"] == 64
  assert found["heads"]["semantic"]["prefixes"] == [8, 16]


@pytest.mark.parametrize(
  ("key", "message"),
  [
    ("objective.spread.invariance=0", "'objective.spread.invariance' is unknown"),
    ("objective.latent.distance=l3", "'objective.latent.distance' is 'l3'; allowed: l2"),
    ("objective.latent.beta=much", "'objective.latent.beta' is 'much'"),
    ("objective.latent.betta=1", "'objective.latent.betta' is unknown. Did you mean"),
    ("heads.semantic.hiden=1", "'heads.semantic.hiden' is unknown. Did you mean"),
  ],
)
def test_what_no_term_or_head_has_is_refused_by_its_key(
  parsed: Any, key: str, message: str
) -> None:
  assert message in parsed(key)["error"]
