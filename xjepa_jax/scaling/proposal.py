"""Another layout, where the one asked for does not fit or spends its time sending.

All ways to divide the devices over the three axes, with each kind of remat and more parts of a
batch, are ranked by arithmetic; nothing is compiled here. The batch, and so what is learned, stays.
(With `accumulate`, terms over a batch, such as VICReg's, see a part of it at a time.)
"""

from __future__ import annotations

from collections.abc import Iterator

from xjepa_jax.errors import ConfigError
from xjepa_jax.scaling.layout import Layout
from xjepa_jax.training.mesh import AXES

# Of a device's memory, what a program may plan with: the rest goes to fragmentation and runtime.
USABLE = 0.9
_REMAT = ("none", "dots", "full")
_PARTS = (1, 2, 4, 8)


def fits(layout: Layout, factor: float = 1.0) -> bool:
  """Whether a device's memory is enough, activations taken `factor` times as estimated."""
  kept = sum(layout.parts.values()) + layout.temporary * factor
  return kept <= USABLE * layout.topology.chip.memory


def propose(layout: Layout, factor: float = 1.0) -> Layout | None:
  """The layout that is predicted to be the fastest of those that fit, or None if none does.

  Parts of a batch are only tried where nothing fits without.

  Args:
    layout: what was asked for.
    factor: by how much compiling found activations larger than estimated.
  """
  best: tuple[float, Layout] | None = None
  for parts in _PARTS:
    for sizes in _meshes(layout):
      for remat in _REMAT:
        try:
          other = layout.on(sizes, remat, parts)
        except ConfigError:
          continue
        if fits(other, factor):
          seconds = other.predict(other.theory).seconds
          # Where two are alike within 1 %, the one found first: no tensor axis, less remat.
          if best is None or seconds < 0.99 * best[0]:
            best = (seconds, other)
    if best:
      return best[1]
  return None


def _meshes(layout: Layout) -> Iterator[dict[str, int]]:
  topology = layout.topology
  for tensor in (1, 2, 4, 8):
    if topology.devices % tensor or tensor > topology.near:
      continue
    rest = topology.devices // tensor
    for fsdp in _divisors(rest):
      # Copies for each slice, and a size that cuts the model.
      if (rest // fsdp) % topology.slices == 0 and _width(layout) % fsdp == 0:
        yield {"replica": rest // fsdp, "fsdp": fsdp, "tensor": tensor}


def changes(layout: Layout, other: Layout) -> list[str]:
  """Flags that turn one layout into another, as a command line takes them."""
  found = [
    f"--config.mesh.{axis}={other.mesh[axis]}"
    for axis in AXES
    if other.mesh[axis] != layout.mesh[axis]
  ]
  if other.config.model.remat != layout.config.model.remat:
    found.append(f"--config.model.remat={other.config.model.remat}")
  if other.config.training.accumulate != layout.config.training.accumulate:
    found.append(f"--config.training.accumulate={other.config.training.accumulate}")
  return found


def _width(layout: Layout) -> int:
  """Width of the encoder's tokens, along which `fsdp` cuts."""
  return int(layout.state.params["encoder"]["norm"]["scale"].shape[0])


def _divisors(number: int) -> list[int]:
  return sorted((d for d in range(1, number + 1) if number % d == 0), reverse=True)
