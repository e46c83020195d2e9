"""Machines by name: number of chips, memory, and rates of computation and communication.

  v5e-16, v6e-256     Cloud TPU: that many chips
  v5p-128             Cloud TPU v5p counts TensorCores, two per chip: 64 chips
  h100-8, a100-64     NVIDIA, eight GPUs per machine
  4xv5p-128           four slices, or groups of machines, joined by the data centre's network

Numbers can be replaced: `v5p-128,ici=3e11,dcn=1e10`, or a JSON file `{"like": "v5p-128", "ici":
3e11}`. Rates are in one direction, per chip.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from typing import Any

from xjepa_jax.errors import ConfigError
from xjepa_jax.training.device_peaks import peak_flops


@dataclasses.dataclass(frozen=True)
class Chip:
  """One device as counted by JAX.

  Attributes:
    kind: as in `jax.Device.device_kind`; key of the peak rate in `training.device_peaks`.
    memory: bytes available to a program.
    memory_rate: memory bandwidth, bytes per second.
    ici: bytes per second that a chip sends over all its links inside a slice or machine.
    dcn: bytes per second that a chip sends to another slice or machine.
    host: chips per machine.
    torus: dimensions of the links' torus; 0 means a switch that joins the chips of a machine.
    wraps: least number of chips in a slice whose torus closes to a ring in every dimension.
    cores: number of cores per chip, if the number in a name counts cores; else 1.
    source: source of these numbers.
  """

  kind: str
  memory: float
  memory_rate: float
  ici: float
  dcn: float
  host: int
  torus: int
  wraps: int
  cores: int
  source: str


_GIB = 2.0**30
_CLOUD = "cloud.google.com/tpu/docs/{0}, key specifications, seen November 2026"
CHIPS: dict[str, Chip] = {
  # 1,200 GB/s in both directions over six links; 50 Gbit/s of data centre network per chip. Slices
  # of whole 4 x 4 x 4 cubes are closed to a torus.
  "v5p": Chip(
    "TPU v5p", 95 * _GIB, 2765e9, 600e9, 6.25e9, 4, 3, 64, 2, _CLOUD.format("v5p")
  ),
  # 400 GB/s in both directions over four links; two NICs of 100 Gbit/s for eight chips. Only a
  # whole pod of 16 x 16 is closed to a torus.
  "v5e": Chip("TPU v5e", 16 * _GIB, 819e9, 200e9, 3.125e9, 8, 2, 256, 1, _CLOUD.format("v5e")),
  # 800 GB/s in both directions over four links; four NICs of 200 Gbit/s for eight chips
  # (v6e-intro).
  "v6e": Chip("TPU v6e", 32 * _GIB, 1638e9, 400e9, 12.5e9, 8, 2, 256, 1, _CLOUD.format("v6e")),
  # NVLink 4, 900 GB/s in both directions; DGX H100 has one ConnectX-7 of 400 Gbit/s per GPU.
  "h100": Chip(
    "NVIDIA H100", 80e9, 3350e9, 450e9, 50e9, 8, 0, 0, 1, "NVIDIA: H100 SXM, DGX H100, data sheets"
  ),
  "h200": Chip(
    "NVIDIA H200", 141e9, 4800e9, 450e9, 50e9, 8, 0, 0, 1, "NVIDIA: H200 SXM, DGX H200, data sheets"
  ),
  # NVLink 3, 600 GB/s in both directions; DGX A100 has one ConnectX-6 of 200 Gbit/s per GPU.
  "a100": Chip(
    "NVIDIA A100", 80e9, 2039e9, 300e9, 25e9, 8, 0, 0, 1,
    "NVIDIA: A100 80GB SXM, DGX A100, data sheets",
  ),
}  # fmt: skip
_RATES = ("memory", "memory_rate", "ici", "dcn", "peak", "efficiency")
# Share of the peak rate that products reach on one chip: an assumption, above the 46 % that PaLM's
# training reached overall, communication included (arXiv 2204.02311, table 3).
EFFICIENCY = 0.6


@dataclasses.dataclass(frozen=True)
class Topology:
  """Chips of one kind.

  Attributes:
    name: the name that was requested.
    chip: properties of each chip.
    chips: number per slice, or per group of machines.
    slices: number of slices, joined by the data centre's network.
    peak: peak FLOP/s of a chip in bfloat16.
    efficiency: share of the peak that products reach.
  """

  name: str
  chip: Chip
  chips: int
  slices: int
  peak: float
  efficiency: float = EFFICIENCY

  @property
  def devices(self) -> int:
    """Number of all chips."""
    return self.chips * self.slices

  @property
  def near(self) -> int:
    """Number of chips joined by fast links: a slice, or a machine with a switch."""
    return self.chips if self.chip.torus else min(self.chips, self.chip.host)

  @property
  def tpu(self) -> bool:
    """Whether the chips are Cloud TPUs."""
    return self.chip.torus > 0

  @property
  def platform(self) -> str:
    """JAX's name of the platform."""
    return "tpu" if self.tpu else "gpu"

  def libtpu_name(self) -> str | None:
    """A slice's name in `jax.experimental.topologies`, such as "v5p:4x4x4"; None for a GPU."""
    if not self.tpu:
      return None
    kind = next(name for name, chip in CHIPS.items() if chip.kind == self.chip.kind)
    return f"{kind}:{'x'.join(map(str, torus_sides(self.chips, self.chip.torus)))}"


def torus_sides(chips: int, dimensions: int) -> tuple[int, ...]:
  """The sides of a slice's torus, as even as powers of two allow: 64 chips in 3-D are 4 x 4 x 4.

  Raises:
    ConfigError: there is no such slice.
  """
  exponent = chips.bit_length() - 1
  if chips < 1 or chips != 1 << exponent:
    raise ConfigError(f"a slice of {chips} chips: give a power of two.")
  sides = [exponent // dimensions + (i < exponent % dimensions) for i in range(dimensions)]
  # v5p names are 2x2x1 and 4x4x8, v5e's and v6e's 2x4: ascending, but with a side of 1 last.
  ordered = sorted(1 << side for side in sides)
  return tuple(ordered[1:] + ordered[:1] if ordered[0] == 1 else ordered)


def topology(text: str) -> Topology:
  """Parse a topology: a name, with numbers replaced, or a JSON file; see the module.

  Raises:
    ConfigError: the name, key or file is unknown, or a number is impossible.
  """
  name, *changes = text.split(",")
  replaced: dict[str, Any] = {}
  if name.endswith(".json"):
    replaced = _from_file(name)
    name = str(replaced.pop("like"))
  for change in changes:
    key, _, value = change.partition("=")
    replaced[key] = value
  numbers = {key: _number(text, key, value) for key, value in replaced.items()}
  # Google Cloud's own name of v5e is v5litepod.
  match = re.fullmatch(r"(?:(\d+)x)?([a-z]\w*)-(\d+)", name.lower().replace("litepod", "e"))
  if not match or match[2] not in CHIPS:
    kind = re.sub(r"^\d+x|-\d+$", "", name.lower())
    near = difflib.get_close_matches(kind, CHIPS, 1)
    raise ConfigError(
      f"--topology={text}: {name!r} is no machine that is known; give KIND-NUMBER with one of "
      f"{', '.join(CHIPS)}, such as {near[0] if near else 'v5p'}-128 or 2xv5p-128 for two slices."
    )
  chip, count = CHIPS[match[2]], int(match[3])
  if count % chip.cores or not count:
    raise ConfigError(
      f"--topology={text}: {match[2]} is counted in TensorCores, {chip.cores} a chip; give a "
      f"multiple of {chip.cores}."
    )
  chips = count // chip.cores
  if chip.torus:
    torus_sides(chips, chip.torus)
  elif chips > chip.host and chips % chip.host:
    raise ConfigError(f"--topology={text}: {chips} GPUs are no whole machines of {chip.host}.")
  peak = peak_flops(chip.kind) or 0.0
  rates: dict[str, Any] = {
    key: value for key, value in numbers.items() if key not in ("peak", "efficiency")
  }
  return Topology(
    text,
    dataclasses.replace(chip, **rates),
    chips,
    int(match[1] or 1),
    numbers.get("peak", peak),
    numbers.get("efficiency", EFFICIENCY),
  )


def _from_file(path: str) -> dict[str, Any]:
  try:
    with open(path, "rb") as file:
      content = json.load(file)  # from bytes, so that a byte-order mark is handled
  except (OSError, ValueError) as error:
    raise ConfigError(f"--topology={path}: cannot be read ({error}).") from error
  if not isinstance(content, dict) or "like" not in content:
    raise ConfigError(
      f'{os.path.basename(path)}: expected {{"like": "v5p-128", ...}} with any of '
      f"{', '.join(_RATES)}."
    )
  return content


def _number(text: str, key: str, value: Any) -> float:
  if key not in _RATES:
    raise ConfigError(f"--topology={text}: {key!r} is no number of it; give {', '.join(_RATES)}.")
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = -1.0
  if not 0 < number < 1e30 or (key == "efficiency" and number > 1):
    raise ConfigError(f"--topology={text}: {key} is {value!r}; give a number above 0.")
  return number
