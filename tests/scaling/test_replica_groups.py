"""Replica groups in all their spellings, against lists written by hand."""

from __future__ import annotations

import pytest

from xjepa_jax.errors import ConfigError
from xjepa_jax.scaling.replica_groups import axes_between, parse_groups

MESH = {"replica": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
  ("text", "groups"),
  [
    ("{{0,1},{2,3}}, use_global_device_ids=true", [[0, 1], [2, 3]]),
    ("{}, to_apply=%add", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ("[2,4]<=[8], dimensions={0}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("[4,2]<=[2,4]T(1,0), dimensions={0}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("[2,4]<=[2,2,2]T(1,0,2), x", [[0, 1, 4, 5], [2, 3, 6, 7]]),
    ("mesh['a'=8] {'a'}, use", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ("mesh['a'=2,'b'=4] {'b'}, use", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("mesh['a'=2,'b'=4] {'a'}, use", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("mesh['a'=2,'b'=2,'c'=2] {'a','c'}, use", [[0, 1, 4, 5], [2, 3, 6, 7]]),
    ("mesh['a'=8] {'a':(1)2}, use", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("mesh['a'=8] {'a':(2)4}, use", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, use", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("mesh['a'=2,'b'=2], device_ids=(3,1,2,0) {'b'}, use", [[3, 1], [2, 0]]),
  ],
)
def test_groups_are_read_however_they_are_written(text: str, groups: list[list[int]]) -> None:
  assert parse_groups(text, 8).tolist() == groups


def test_a_spelling_that_is_not_known_is_shown() -> None:
  with pytest.raises(ConfigError, match="'new_way"):
    parse_groups("new_way(3)", 8)
  with pytest.raises(ConfigError, match="device_ids"):
    parse_groups("mesh['a'=2], device_ids=<x> {'a'}", 2)


@pytest.mark.parametrize(
  ("group", "axes"),
  [
    ([0, 1], ("tensor",)),
    ([0, 2], ("fsdp",)),
    ([1, 5], ("replica",)),
    ([0, 2, 4, 6], ("replica", "fsdp")),
    ([0, 3], ("fsdp", "tensor")),
  ],
)
def test_a_group_lies_along_the_axes_in_which_its_members_differ(
  group: list[int], axes: tuple[str, ...]
) -> None:
  assert axes_between([group], MESH) == axes
