"""What the tests of launch/ share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.stand_ins import StandIns


@pytest.fixture
def stand_ins(tmp_path: Path) -> StandIns:
  """Stand-ins for all programs that reach out of this machine."""
  folder = tmp_path / "bin"
  folder.mkdir()
  return StandIns(folder)
