"""Where every parameter of every preset lies on meshes of up to 4,096 devices, against a file.

RENEW_GOLDEN=1 python -m pytest tests/scaling/test_shardings.py   # accepts what there is now
"""

from __future__ import annotations

import jax
import pytest

from tests.scaling.conftest import compare_with_golden, preset_config
from xjepa_jax.scaling.blueprint import slots_of
from xjepa_jax.scaling.layout import lay_out
from xjepa_jax.scaling.topologies import topology

MESHES = {
  "v5e-8": (1, 8, 1),
  "h100-8": (2, 2, 2),
  "v5p-128": (1, 64, 1),
  "2xv5p-128": (2, 16, 4),
  "v5p-8192": (16, 256, 1),
}


@pytest.mark.parametrize("preset", ["tiny", "small", "base", "large"])
def test_every_parameter_lies_where_the_file_says(preset: str) -> None:
  specs: dict[str, list[str]] = {}
  for name, sizes in MESHES.items():
    mesh = dict(zip(("replica", "fsdp", "tensor"), sizes, strict=True))
    config = preset_config(preset)
    state = lay_out(config, slots_of(config)[0], topology(name), mesh).state
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
      key = jax.tree_util.keystr(path, simple=True, separator="/")
      shape = "x".join(map(str, leaf.shape)) or "()"
      spec = ",".join(axis or "-" for axis in leaf.sharding.spec)
      specs.setdefault(f"{key} {shape}", []).append(f"{'x'.join(map(str, sizes))}:{spec}")
  lines = [f"{name}  {' '.join(where)}" for name, where in specs.items()]
  compare_with_golden(f"shardings_{preset}.txt", lines)


def test_a_state_is_divided_by_as_many_devices_as_its_matrices_are() -> None:
  config = preset_config("large")
  slots, machines = slots_of(config)[0], topology("v5p-128")
  whole, cut = (
    lay_out(config, slots, machines, {"replica": 64 // n, "fsdp": n, "tensor": 1}) for n in (1, 64)
  )
  leaves = jax.tree_util.tree_leaves_with_path(whole.state.params)
  kernels = sum(leaf.size * 4 for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path))
  parameters = sum(leaf.size * 4 for _, leaf in leaves)
  assert whole.parts["parameters"] == parameters
  assert cut.parts["parameters"] == kernels / 64 + parameters - kernels
  # Two moments of all, and the target encoder.
  encoder = sum(leaf.size * 4 for leaf in jax.tree.leaves(whole.state.params["encoder"]))
  assert whole.parts["optimizer"] == pytest.approx(2 * parameters + encoder, abs=64)
