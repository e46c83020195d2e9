"""Many machines write the bytes that one writes; without Beam, the option says what is missing.

Needs Apache Beam in an environment of its own, for it contradicts the versions that the other tests
run with: `pip install -e .[beam,geo] pytest pytest-timeout`. Elsewhere these are skipped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.test_writer import contents, make_plan
from xjepa_jax.data.beam import run_pieces
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import OptionError, WriteError

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
OPTIONS = "--runner=DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2"
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason="Apache Beam is not installed")


def fail(piece: int) -> None:
  raise ValueError(f"piece {piece} is torn")


@needs_beam
def test_a_pipeline_writes_the_bytes_that_one_process_writes(tmp_path: Path) -> None:
  plan, counts = make_plan(), list[int]()
  write_dataset(plan, str(tmp_path / "one"))
  write_dataset(plan, str(tmp_path / "many"), progress=counts.append, beam=OPTIONS)
  assert contents(tmp_path / "one") == contents(tmp_path / "many")
  assert sum(counts) == plan.pairs


@needs_beam
def test_shards_that_are_finished_are_not_written_again(tmp_path: Path) -> None:
  plan = make_plan()
  write_dataset(plan, str(tmp_path / "whole"))
  with pytest.raises(KeyboardInterrupt):
    write_dataset(plan, str(tmp_path / "cut"), progress=_interrupt_after(20))
  write_dataset(plan, str(tmp_path / "cut"), resume=True, beam=OPTIONS)
  assert contents(tmp_path / "whole") == contents(tmp_path / "cut")


@needs_beam
def test_a_piece_that_fails_is_told_in_one_paragraph() -> None:
  with pytest.raises(WriteError, match="piece 3 is torn"):
    run_pieces(fail, [3], "--runner=DirectRunner")


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is installed")
def test_without_beam_the_option_says_how_to_get_it() -> None:
  with pytest.raises(OptionError, match=r"--beam: Apache Beam cannot be .*xjepa_jax\[beam\]"):
    run_pieces(fail, [3], "")


def _interrupt_after(count: int) -> Callable[[int], None]:
  seen = 0

  def progress(more: int) -> None:
    nonlocal seen
    seen += more
    if seen >= count:
      raise KeyboardInterrupt

  return progress
