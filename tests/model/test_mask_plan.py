"""Plans of masks: what they promise holds on any grid, and what cannot work is refused by key."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xjepa_jax.config import MaskConfig
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.mask_plan import MaskPlan, plan_masks

# Blocks as in I-JEPA, which leave four in ten tokens to the context.
LARGE = MaskConfig(scale=(0.15, 0.2), context=0.4)


def planned(grid: tuple[int, int], **changes: Any) -> MaskPlan:
  return plan_masks(grid, dataclasses.replace(LARGE, **changes))


@settings(deadline=None, max_examples=150)
@given(
  grid=st.tuples(st.integers(4, 28), st.integers(4, 28)),
  blocks=st.integers(1, 6),
  scale=st.lists(st.floats(0.01, 1), min_size=2, max_size=2).map(sorted),
  aspect=st.lists(st.floats(0.05, 20), min_size=2, max_size=2).map(sorted),
  context=st.floats(0.01, 1),
  overlap=st.booleans(),
)
def test_a_plan_always_leaves_what_it_promises_or_says_what_would_do(
  grid: tuple[int, int],
  blocks: int,
  scale: list[float],
  aspect: list[float],
  context: float,
  overlap: bool,
) -> None:
  wish: dict[str, Any] = {"blocks": blocks, "scale": scale, "aspect": aspect, "overlap": overlap}
  try:
    plan = planned(grid, context=context, **wish)
  except ConfigError as error:
    found = re.match(
      r"config key 'mask\.(\w+)' is .* give (at most|at least|a) ([\d.]*\d)?", str(error)
    )
    assert found, error
    if found[1] == "context":
      planned(grid, **{**wish, "context": float(found[3])})
    return
  rows, columns = grid
  assert plan.context_tokens == round(context * rows * columns) >= 1
  assert overlap or plan.context_tokens + blocks * plan.block_tokens <= rows * columns
  areas = [height * width for height, width in plan.shapes]
  assert all(1 <= h <= rows and 1 <= w <= columns for h, w in plan.shapes)
  assert 1 <= plan.block_tokens <= min(areas)
  # Not needlessly small: what the smallest scale asks for, or the largest that rounding allows.
  assert plan.block_tokens + 1 > scale[0] * rows * columns - 1e-6 or areas == [plan.block_tokens]
  assert len(plan.odds) == len(plan.shapes) and min(plan.odds) > 0
  assert hash(plan) == hash(planned(grid, context=context, **wish))


@pytest.mark.parametrize("rows", range(4, 29, 3))
@pytest.mark.parametrize(
  "mask",
  [
    MaskConfig(),
    LARGE,
    dataclasses.replace(LARGE, mode="random"),
  ],
  ids=["default", "large", "large random"],
)
def test_defaults_work_on_every_grid(rows: int, mask: MaskConfig) -> None:
  for columns in range(4, 29, 3):
    plan = plan_masks((rows, columns), mask)
    assert plan.context_tokens == round(mask.context * rows * columns)


def test_a_side_longer_than_the_grid_is_cut_and_the_other_grows() -> None:
  plan = planned((4, 28), scale=(0.5, 0.5), aspect=(1, 1), blocks=1)
  assert plan.shapes == ((4, 14),) and plan.block_tokens == 56


@pytest.mark.parametrize(
  ("change", "complaint"),
  [
    ({"mode": "blocks"}, r"mask\.mode' is 'blocks': give one of multiblock, random"),
    ({"blocks": 0}, r"mask\.blocks' is 0: give at least 1"),
    ({"blocks": 7}, r"mask\.blocks' is 7: 7 x 9 targets can leave 1 of 64|mask\.context"),
    ({"blocks": 8}, r"mask\.blocks' is 8: 8 x 9 targets can leave 0 of 64.* at most 7"),
    ({"scale": (0.2, 0.15)}, r"mask\.scale.*the smaller first"),
    ({"scale": (0.0, 0.15)}, r"mask\.scale.*above 0 and at most 1"),
    ({"scale": (0.5, 1.1)}, r"mask\.scale.*at most 1"),
    ({"scale": (math.nan, 0.5)}, r"mask\.scale"),
    ({"scale": (0.2,)}, r"mask\.scale.*two finite numbers"),
    ({"scale": (1.0, 1.0), "blocks": 1}, r"mask\.scale.* 1 x 64 targets can leave 0"),
    ({"aspect": (-1.0, 1.0)}, r"mask\.aspect"),
    ({"aspect": (1.0, math.inf)}, r"mask\.aspect"),
    ({"context": 0.0}, r"mask\.context' is 0.0: give a share"),
    ({"context": math.nan}, r"mask\.context' is nan: give a share"),
    ({"context": 0.001}, r"mask\.context' is 0.001: not one token of 64; give at least 0.0157"),
    ({"context": 0.5}, r"mask\.context' is 0.5: asks for 32, .* leave 28 of 64.* at most 0.4375"),
    ({"context": 1.01, "overlap": True}, r"mask\.context"),
    ({"visible": -0.1}, r"mask\.visible' is -0.1: give a share of the blocks, from 0 to 1"),
    ({"visible": math.nan}, r"mask\.visible' is nan"),
    ({"same_context": True}, r"mask\.same_context' is True: .*give mask\.visible 0, or set"),
    ({"mode": "random", "target": 0.0}, r"mask\.target"),
    ({"mode": "random", "target": 1.0}, r"mask\.target' is 1.0: .*give at most 0.9843"),
    ({"mode": "random", "target": 0.7}, r"mask\.context.* at most 0.2968"),
  ],
)
def test_settings_that_cannot_work_are_refused_by_key(
  change: dict[str, Any], complaint: str
) -> None:
  with pytest.raises(ConfigError, match=complaint):
    planned((8, 8), **change)


def test_a_grid_without_tokens_is_refused() -> None:
  with pytest.raises(ConfigError, match=r"0 x 4 tokens.*model\.patch"):
    planned((0, 4))
