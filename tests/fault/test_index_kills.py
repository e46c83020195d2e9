"""Building an index is killed at random moments; what is there in the end answers as if it had not.

    XJEPA_INDEX_KILLS=10 python -m pytest tests/fault/test_index_kills.py kills ten
times instead of three.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.indexes import archive as archives
from xjepa_jax.retrieval.embedding.files import EmbeddingFiles
from xjepa_jax.retrieval.indexes.base import Hits
from xjepa_jax.retrieval.indexes.directory import open_index

KILLS = int(os.environ.get("XJEPA_INDEX_KILLS", "3"))
ROWS, SIZE = 6_000, 64
LIMIT = 120  # seconds of one run


def test_an_index_killed_at_random_moments_answers_as_an_undisturbed_one(tmp_path: Path) -> None:
  pytest.importorskip("faiss")
  files = archives.embeddings(archives.make(ROWS, SIZE), str(tmp_path / "embeddings"))
  config = tmp_path / "settings.json"
  config.write_text('{"flat_below": 100, "lists": 64}')
  command = [sys.executable, "-m", "xjepa_jax.retrieval.index", "--embeddings", files.directory]
  command += ["--backend", "faiss", "--config", str(config), "--rebuild", "--out"]

  undisturbed, out = tmp_path / "undisturbed", tmp_path / "index"
  start = time.monotonic()
  subprocess.run([*command, str(undisturbed)], check=True, timeout=LIMIT)
  seconds = time.monotonic() - start
  expected = answers(undisturbed, files)

  rng = np.random.default_rng(0)
  # The first ones kill a build where there was nothing, the others one that replaces an index.
  for number, share in enumerate(rng.uniform(0, 1, KILLS)):
    if number == (KILLS + 1) // 2:
      subprocess.run([*command, str(out)], check=True, timeout=LIMIT)
    there = out.exists()
    killed(number, [*command, str(out)], share * seconds)
    if out.exists():
      alike(answers(out, files), expected)
    elif there:  # between two renames: the new one is whole under the name that it was built under
      alike(answers(Path(f"{out}.building"), files), expected)
  subprocess.run([*command, str(out)], check=True, timeout=LIMIT)
  alike(answers(out, files), expected)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    *("embeddings", "index", "settings.json", "undisturbed")
  ]


def killed(number: int, command: list[str], after: float) -> None:
  """Runs a command and kills it (signal 9) after some seconds, or sooner if it ended before."""
  for _ in range(5):
    process = subprocess.Popen(command)
    try:
      process.wait(timeout=after)
    except subprocess.TimeoutExpired:
      process.kill()
      assert process.wait() == -9
      print(f"kill {number + 1}: after {after:.2f} s")
      return
    assert process.returncode == 0
    after *= 0.8
  raise AssertionError("the command ended before each of five kills")


def answers(directory: Path, files: EmbeddingFiles) -> Hits:
  """Hits of some rows."""
  index = open_index(str(directory))
  try:
    assert len(index) == len(files) == ROWS
    return index.search(files.vectors_of(range(0, ROWS, 100)), 10)
  finally:
    index.close()


def alike(found: Hits, expected: Hits) -> None:
  """To the last bit."""
  np.testing.assert_array_equal(found.rows, expected.rows)
  np.testing.assert_array_equal(found.scores, expected.scores)
