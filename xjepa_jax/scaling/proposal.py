"""A better layout for a run that does not fit, or that spends its time communicating.

Every division of the devices over the three axes, with each kind of remat and more parts of a
batch, is ranked by estimates; nothing is compiled. The batch stays, and so does what is learned.
(With `accumulate`, terms over a batch, such as VICReg's, see one part of it at a time.)
"""

from __future__ import annotations

from collections.abc import Iterator

from xjepa_jax.errors import ConfigError
from xjepa_jax.scaling.layout import Layout
from xjepa_jax.training.mesh import AXES

# Share of a device's memory that a plan may use: the rest goes to fragmentation and the runtime.
USABLE = 0.9
# In order of preference: the first of two equally fast layouts is proposed.
_REMAT = ("none", "dots", "full")
_PARTS = (1, 2, 4, 8)


def fits(layout: Layout, factor: float = 1.0) -> bool:
  """Whether a device's memory suffices, with activations `factor` times the estimate."""
  kept = sum(layout.parts.values()) + layout.temporary * factor
  return kept <= USABLE * layout.topology.chip.memory


def propose(layout: Layout, factor: float = 1.0) -> Layout | None:
  """The layout with the fastest predicted step among those that fit, or None if none does.

  A batch is divided into parts only if nothing fits otherwise.

  Args:
    layout: the requested layout.
    factor: ratio of the compiled size of activations to the estimate.
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
          # Within 1 %, prefer the layout found first, which has no tensor axis and less remat.
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
      # Each slice holds whole copies, and `fsdp` has to divide the width to shard the model.
      if (rest // fsdp) % topology.slices == 0 and _width(layout) % fsdp == 0:
        yield {"replica": rest // fsdp, "fsdp": fsdp, "tensor": tensor}


def changes(layout: Layout, other: Layout) -> list[str]:
  """The command line flags that turn one layout into another."""
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
  """Width of the encoder's tokens, which `fsdp` shards."""
  return int(layout.state.params["encoder"]["norm"]["scale"].shape[0])


def _divisors(number: int) -> list[int]:
  return sorted((d for d in range(1, number + 1) if number % d == 0), reverse=True)
