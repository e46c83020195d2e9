"""Writers: JSON lines that survive restarts, TensorBoard without TensorFlow, Weights & Biases."""

from __future__ import annotations

import io
import json
import math
import resource
import subprocess
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.multiprocess.test_batches import free_port
from xjepa_jax.data import framing, storage
from xjepa_jax.errors import ConfigError, TrainingError
from xjepa_jax.training.json_lines import JsonLines, read_history
from xjepa_jax.training.prometheus import Prometheus
from xjepa_jax.training.tensorboard import TensorBoard
from xjepa_jax.training.weights_and_biases import WeightsAndBiases
from xjepa_jax.training.writers import Writers, open_services


def test_every_line_is_on_disk_when_it_is_written(tmp_path: Path) -> None:
  path = tmp_path / "metrics.jsonl"
  writer = JsonLines(str(path))
  writer.scalars(10, {"loss/total": np.float32(0.5), "bad": math.nan, "worse": -math.inf})
  assert json.loads(path.read_text()) == {
    "step": 10,
    "loss/total": 0.5,
    "bad": None,
    "worse": None,
  }
  assert "NaN" not in path.read_text() and "Infinity" not in path.read_text()
  writer.close()
  row = read_history(str(path))[0]
  assert row["step"] == 10 and math.isnan(row["bad"])


def test_a_resumed_run_leaves_one_curve(tmp_path: Path) -> None:
  path = str(tmp_path / "metrics.jsonl")
  first = JsonLines(path)
  for step in range(0, 100, 10):
    first.scalars(step, {"loss": step})
  first.close()
  second = JsonLines(path, first=50)
  for step in range(50, 80, 10):
    second.scalars(step, {"loss": -step})
  second.close()
  rows = read_history(path)
  assert [row["step"] for row in rows] == list(range(0, 80, 10))
  assert [row["loss"] for row in rows] == [0, 10, 20, 30, 40, -50, -60, -70]
  JsonLines(path).close()  # a run that starts anew
  assert read_history(path) == []


def test_a_line_cut_short_by_a_crash_is_dropped_and_a_broken_one_is_refused(
  tmp_path: Path,
) -> None:
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.')
  assert [row["step"] for row in read_history(str(path))] == [1]
  writer = JsonLines(str(path), first=3)
  writer.scalars(3, {"loss": 1.5})
  writer.close()
  assert [row["step"] for row in read_history(str(path))] == [1, 3]
  path.write_text('{"step": 1}\n{"loss": 2}\n{"step": 3}\n')
  with pytest.raises(TrainingError, match=r"metrics\.jsonl: line 2 .*Mend that line"):
    JsonLines(str(path), first=3)
  assert path.read_text().count("\n") == 3


def test_dropping_lines_leaves_the_file_whole_if_the_disk_is_full(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}\n')

  def full(path: str, content: bytes) -> None:
    raise OSError("no space left")

  monkeypatch.setattr(storage, "write_file", full)
  with pytest.raises(OSError, match="no space"):
    JsonLines(str(path), first=2)
  assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_json_lines_in_object_storage_are_whole_when_closed() -> None:
  path = "memory://run/metrics.jsonl"
  for first in (0, 20):
    writer = JsonLines(path, first)
    for step in (first, first + 10, first + 20):
      writer.scalars(step, {"loss": step})
    writer.close()
  assert [row["step"] for row in read_history(path)] == [0, 10, 20, 30, 40]


def events(directory: Path) -> list[Any]:
  from tensorboardX.proto.event_pb2 import Event

  found = []
  for path in sorted(directory.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    for start, length, _ in framing.scan(io.BytesIO(data), str(path)):  # checks every CRC
      found.append(Event.FromString(data[start : start + length]))
  return found


def test_tensorboard_files_hold_what_was_written(tmp_path: Path) -> None:
  picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  values = np.array([0.0, 1.0, 1.0, math.nan, 5.0, math.inf])
  writer = TensorBoard(str(tmp_path), first=20)
  writer.scalars(30, {"loss/total": 0.25, "bad": math.nan})
  writer.histograms(30, {"weights": values, "nothing": np.array([math.nan])})
  writer.images(30, {"found": picture})
  writer.close()
  read = events(tmp_path)
  starts = [e for e in read if e.HasField("session_log")]
  assert [(e.step, e.session_log.status) for e in starts] == [(20, 1)]  # START: purges from 20 on
  entries = {v.tag: (e.step, v) for e in read for v in e.summary.value}
  assert set(entries) == {"loss/total", "bad", "weights", "found"}
  assert all(step == 30 for step, _ in entries.values())
  assert entries["loss/total"][1].simple_value == 0.25
  assert math.isnan(entries["bad"][1].simple_value)
  histogram = entries["weights"][1].histo
  assert (histogram.num, histogram.min, histogram.max, histogram.sum) == (4, 0, 5, 7)
  encoded = entries["found"][1].image
  assert (encoded.height, encoded.width) == (5, 7)
  decoded = np.asarray(Image.open(io.BytesIO(encoded.encoded_image_string)))
  np.testing.assert_array_equal(decoded, picture)


def test_two_starts_of_one_second_have_files_of_their_own(tmp_path: Path) -> None:
  for step in (1, 2):
    writer = TensorBoard(str(tmp_path), first=step)
    writer.scalars(step, {"loss": step})
    writer.close()
  assert len(list(tmp_path.iterdir())) == 2
  values = [(e.step, v.simple_value) for e in events(tmp_path) for v in e.summary.value]
  assert values == [(1, 1), (2, 2)]


def test_a_full_disk_is_an_error_that_names_the_file_and_nothing_waits(tmp_path: Path) -> None:
  path = tmp_path / "metrics.jsonl"
  lines, board = JsonLines(str(path)), TensorBoard(str(tmp_path / "tensorboard"))
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
  try:
    for writer, name in ((lines, r"metrics\.jsonl"), (board, r"tensorboard/events\.out\S+")):
      with pytest.raises(TrainingError, match=rf"{name}: cannot be written \(.*same command"):
        for step in range(1000):
          writer.scalars(step, {"loss": 1.0})
      writer.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
  assert path.stat().st_size == 1000
  steps = [row["step"] for row in read_history(str(path))]  # the last line is cut short
  assert steps == list(range(len(steps))) and len(steps) > 10


def test_nothing_imports_tensorflow_or_torch(tmp_path: Path) -> None:
  code = (
    "import sys, numpy as np\n"
    "from xjepa_jax.training.writers import open_files\n"
    f"with open_files({str(tmp_path)!r}) as writers:\n"
    "  writers.scalars(1, {'loss': 1.0})\n"
    "  writers.histograms(1, {'w': np.arange(9.0)})\n"
    "  writers.images(1, {'i': np.zeros((4, 4, 3), np.uint8)})\n"
    "import xjepa_jax.training.progress, xjepa_jax.report.page\n"
    "heavy = ('tensorflow', 'torch', 'jax', 'wandb', 'matplotlib.pyplot')\n"
    "print([name for name in heavy if name in sys.modules])\n"
  )
  said = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
  )
  assert said.stdout.strip() == "[]"
  assert read_history(f"{tmp_path}/metrics.jsonl") == [{"step": 1, "loss": 1.0}]
  assert len(events(tmp_path / "tensorboard")) >= 4


class Recorder:
  """A writer that remembers, and fails at closing if told to."""

  def __init__(self, fails: bool = False):
    self.said: list[Any] = []
    self.fails = fails

  def scalars(self, step: int, values: Any) -> None:
    self.said.append((step, dict(values)))

  def histograms(self, step: int, values: Any) -> None:
    self.said.append((step, {key: value.shape for key, value in values.items()}))

  def images(self, step: int, values: Any) -> None:
    self.said.append((step, list(values)))

  def close(self) -> None:
    self.said.append("closed")
    if self.fails:
      raise OSError("the network is gone")


def test_all_writers_are_told_the_same_and_all_are_closed_whatever_fails() -> None:
  one, other = Recorder(fails=True), Recorder()
  writers = Writers([one, other])
  writers.scalars(3, {"a": np.float32(2)})
  writers.histograms(3, {"w": [[1, 2]]})  # type: ignore[dict-item]
  writers.images(3, {"i": np.zeros((2, 2, 3), np.uint8)})
  with pytest.raises(OSError, match="network"):
    writers.close()
  assert one.said == other.said == [(3, {"a": 2.0}), (3, {"w": (1, 2)}), (3, ["i"]), "closed"]
  assert type(one.said[0][1]["a"]) is float


def test_weights_and_biases_not_installed_is_said_before_anything_is_written(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(ConfigError, match=r"telemetry\.wandb.*pip install xjepa_jax\[wandb\]"):
    open_services(str(tmp_path), wandb="cross-sensor")
  assert not list(tmp_path.iterdir())


def test_weights_and_biases_without_a_key_is_one_paragraph(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  class UsageError(Exception):
    """As wandb's own, of the same name."""

  def init(**_: Any) -> Any:
    raise UsageError("api_key not configured (no-tty).\ncall wandb.login(key=[your_api_key])")

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
  with pytest.raises(ConfigError) as error:
    open_services(str(tmp_path), wandb="cross-sensor")
  said = str(error.value)
  assert "'telemetry.wandb' is 'cross-sensor'" in said and "\n" not in said
  assert "(UsageError: api_key not configured (no-tty). call wandb.login" in said
  assert "WANDB_API_KEY" in said and "WANDB_MODE=offline" in said


def test_weights_and_biases_continues_its_run(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  begun: list[dict[str, Any]] = []
  logged: list[Any] = []

  def init(**options: Any) -> Any:
    begun.append(options)
    return types.SimpleNamespace(
      log=lambda values, step: logged.append((step, values)), finish=lambda: None
    )

  fake = types.SimpleNamespace(init=init, Histogram=np.sort, Image=np.shape)
  monkeypatch.setitem(sys.modules, "wandb", fake)
  for _ in range(2):
    writer = WeightsAndBiases("cross-sensor", str(tmp_path), {"model": {"width": 8}})
    writer.scalars(1, {"loss": np.float32(0.5)})
    writer.histograms(1, {"w": np.array([[2.0, math.nan], [1.0, 3.0]])})
    writer.images(1, {"i": np.zeros((4, 5, 3), np.uint8)})
    writer.close()
  assert begun[0]["id"] == begun[1]["id"] and begun[0]["resume"] == "allow"
  assert begun[0]["project"] == "cross-sensor" and begun[0]["config"] == {"model": {"width": 8}}
  assert logged[0] == (1, {"loss": 0.5})
  assert list(logged[1][1]["w"]) == [1, 2, 3]
  assert logged[2] == (1, {"i": (4, 5, 3)})


def scraped(port: int) -> dict[str, dict[str, float]]:
  """metric -> key -> value, as Prometheus' own parser reads what the port answers."""
  from prometheus_client.parser import text_string_to_metric_families

  with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
    text = answer.read().decode()
  return {
    family.name: {sample.labels.get("key", ""): sample.value for sample in family.samples}
    for family in text_string_to_metric_families(text)
  }


def test_prometheus_is_answered_the_last_value_of_every_key_and_nothing_else(
  tmp_path: Path,
) -> None:
  port = free_port()
  with open_services(str(tmp_path), prometheus_port=port) as writers:
    writers.scalars(1, {"loss/total": 3.0, "validation/a->b/recall@1": 0.5})
    writers.scalars(2, {"loss/total": np.float32(2.5), "bad": math.nan})
    found = scraped(port)
    assert math.isnan(found["xjepa_scalar"].pop("bad"))
    assert found == {
      "xjepa_step": {"": 2},
      "xjepa_scalar": {"loss/total": 2.5, "validation/a->b/recall@1": 0.5},
    }
    with pytest.raises(ConfigError, match=rf"'telemetry\.prometheus_port' is {port}.*127\.0\.0\.1"):
      Prometheus(port, "127.0.0.1")
  with pytest.raises(OSError, match="refused"):
    scraped(port)


def test_prometheus_not_installed_is_said_before_anything_is_written(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "prometheus_client", None)
  with pytest.raises(ConfigError, match=r"pip install xjepa_jax\[prometheus\]"):
    open_services(str(tmp_path), prometheus_port=free_port())
  assert not list(tmp_path.iterdir())
