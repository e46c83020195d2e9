"""Machines by name, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.scaling.topologies import CHIPS, topology, torus_sides
from xjepa_jax.training.device_peaks import peak_flops


@pytest.mark.parametrize(
  ("name", "devices", "slices", "near", "libtpu"),
  [
    ("v5p-128", 64, 1, 64, "v5p:4x4x4"),  # TensorCores, two a chip
    ("v5p-256", 128, 1, 128, "v5p:4x4x8"),
    ("v5p-8", 4, 1, 4, "v5p:2x2x1"),
    ("v5p-8192", 4096, 1, 4096, "v5p:16x16x16"),
    ("v5e-16", 16, 1, 16, "v5e:4x4"),
    ("v5litepod-8", 8, 1, 8, "v5e:2x4"),
    ("v6e-256", 256, 1, 256, "v6e:16x16"),
    ("4xv5p-128", 256, 4, 64, "v5p:4x4x4"),
    ("h100-8", 8, 1, 8, None),
    ("a100-64", 64, 1, 8, None),
  ],
)
def test_a_name_says_how_many_chips_there_are_and_how_many_are_near(
  name: str, devices: int, slices: int, near: int, libtpu: str | None
) -> None:
  found = topology(name)
  assert (found.devices, found.slices, found.near) == (devices, slices, near)
  assert found.libtpu_name() == libtpu


def test_every_chip_has_a_peak_and_plausible_rates() -> None:
  for name, chip in CHIPS.items():
    assert peak_flops(chip.kind), name
    assert chip.memory_rate > chip.ici > chip.dcn > 1e9, name
    assert chip.source


def test_sides_multiply_to_the_chips() -> None:
  assert torus_sides(32, 3) == (2, 4, 4) and torus_sides(1, 2) == (1, 1)
  assert torus_sides(2048, 3) == (8, 16, 16)


def test_numbers_are_replaced_on_the_command_line_and_by_a_file(tmp_path: Path) -> None:
  found = topology("v5p-128,ici=3e11,efficiency=0.4,peak=1e15")
  assert (found.chip.ici, found.efficiency, found.peak) == (3e11, 0.4, 1e15)
  assert found.chip.dcn == CHIPS["v5p"].dcn
  file = tmp_path / "cluster.json"
  file.write_text(json.dumps({"like": "h100-16", "dcn": 1e11}))
  assert topology(str(file)).chip.dcn == 1e11 and topology(str(file)).devices == 16


@pytest.mark.parametrize(
  ("name", "complaint"),
  [
    ("v5-128", "no machine that is known.*v5p"),
    ("h100", "KIND-NUMBER"),
    ("v5p-127", "TensorCores, 2 a chip"),
    ("v5e-12", "power of two"),
    ("h100-12", "no whole machines of 8"),
    ("h100-8,speed=1", "'speed'"),
    ("h100-8,ici=fast", "'fast'"),
    ("h100-8,efficiency=2", "efficiency"),
    ("nowhere.json", "cannot be read"),
  ],
)
def test_what_cannot_be_is_refused(name: str, complaint: str) -> None:
  with pytest.raises(ConfigError, match=complaint):
    topology(name)
