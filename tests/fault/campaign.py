"""Runs that are killed many times, and what they leave beside what an undisturbed run leaves."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from tests.fault.killing import Aim, Command, Kill
from tests.fault.phases import IMPORT, PAIRS, PHASES, REPORT, RUN
from xjepa_jax.data.geotiff_folders import write_geotiffs
from xjepa_jax.data.simulate import simulated_archive

ROOT = Path(__file__).resolve().parents[2]
# Of a row of `metrics.jsonl`, what depends on the step alone; the rest is times and memory.
_MEASURED = ("step", "loss/", "norm/", "schedule/", "geometry/", "chance/", "validation/")
Arrays = dict[str, tuple[str, tuple[int, ...], bytes]]  # name -> dtype, shape, bytes


def write_archive(folder: Path, pairs: int, size: int = 16) -> Path:
  """Simulated scenes as GeoTIFF files, with a table of the pairs."""
  archive = simulated_archive(pairs, size)
  write_geotiffs(archive, str(folder))
  table = ["pair_id,s1,s2,split"]
  for split, entries in archive.splits.items():
    table += [f"{e.pair_id},s1/{e.pair_id}.tif,s2/{e.pair_id}.tif,{split}" for e in entries]
  (folder / "pairs.csv").write_text("\n".join(table) + "\n")
  return folder


@dataclasses.dataclass(frozen=True)
class Commands:
  """What is killed: an import of GeoTIFF files, and a small run on what it wrote.

  Attributes:
    archive: of the images, as `write_archive` leaves it.
    environment: of every process.
    options: of the run, beside those that the debug config has.
    seconds: that one start may take.
    usual: what was learnt of the phases, by all commands.
  """

  archive: Path
  environment: Mapping[str, str]
  options: Sequence[str] = ()
  seconds: float = 600
  usual: dict[str, float] = dataclasses.field(default_factory=dict)

  def importing(self, folder: Path) -> Command:
    """The import into a folder, with workers, which goes on where one was interrupted."""
    line = [
      *(sys.executable, "-m", "xjepa_jax.data.importers", "manifest", "--resume"),
      *("--src", str(self.archive / "pairs.csv"), "--out", str(folder / PAIRS)),
      *("--sensor", "s1=sentinel1_grd", "--sensor", "s2=sentinel2_l2a", "--name", "simulated"),
      *("--workers", "2", "--shard-mb", "0.03"),
    ]
    return self._command("import", line, folder)

  def running(self, folder: Path) -> Command:
    """The run in a folder, on the data set there."""
    line = [
      *(sys.executable, "-m", "xjepa_jax.main", f"--workdir={folder / RUN}"),
      *(f"--config=tests/debug_config.py:{folder / PAIRS}", *self.options),
    ]
    return self._command("run", line, folder)

  def _command(self, name: str, line: Sequence[str], folder: Path) -> Command:
    folder.mkdir(parents=True, exist_ok=True)
    return Command(name, line, self.environment, ROOT, folder, self.seconds, self.usual)


def aims(kills: int, chosen: random.Random) -> list[Aim]:
  """Random moments, every phase as often as any other, in an order that a run can have.

  Imports come first and reports last; between them the other phases, shuffled.
  """
  phases = (list(PHASES) * (kills // len(PHASES) + 1))[:kills]
  between = [phase for phase in phases if phase not in (IMPORT, REPORT)]
  chosen.shuffle(between)
  ordered = [IMPORT] * phases.count(IMPORT) + between + [REPORT] * phases.count(REPORT)
  return [
    Aim(phase, chosen.randint(1, 3) if phase in ("steps", "save") else 1, chosen.random())
    for phase in ordered
  ]


def kill_until_done(command: Command, moments: Sequence[Aim]) -> Iterator[Kill]:
  """Starts a command and kills it at each moment in turn, until none is left or it is done.

  Yields:
    Each kill that hit.

  Raises:
    AssertionError: a start ended by itself otherwise than well.
  """
  for aim in moments:
    status, kill = command.run(aim)
    if kill is not None:
      yield kill
    else:
      assert status == 0, command.said()
      return
  status, _ = command.run()
  assert status == 0, command.said()


def kill_import_and_run(
  commands: Commands, folder: Path, kills: int, chosen: random.Random
) -> Iterator[Kill]:
  """Kills a folder's import, then its run, at `kills` moments in all; see `kill_until_done`."""
  moments = aims(kills, chosen)
  importing = [aim for aim in moments if aim.phase == IMPORT]
  yield from kill_until_done(commands.importing(folder), importing)
  yield from kill_until_done(commands.running(folder), moments[len(importing) :])


def state_of(checkpoint: Path) -> Arrays:
  """Every array of a checkpoint, read by Orbax alone."""
  path = epath.Path(checkpoint) / "state"
  handler = ocp.PyTreeCheckpointHandler()
  whole = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree
  )
  found = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=whole))
  leaves = jax.tree_util.tree_leaves_with_path(found)
  return {
    jax.tree_util.keystr(name): (str(a.dtype), a.shape, a.tobytes())
    for name, a in ((name, np.asarray(leaf)) for name, leaf in leaves)
  }


def steps_of(workdir: Path) -> list[int]:
  """Steps that have a checkpoint by its name."""
  folders = (workdir / "checkpoints").iterdir()
  return sorted(int(each.name) for each in folders if each.name.isdecimal())


def rows_of(workdir: Path) -> list[dict[str, Any]]:
  """Every row of `metrics.jsonl`, which is whole, without what depends on the clock."""
  content = (workdir / "metrics.jsonl").read_text()
  assert content.endswith("\n")
  return [
    {key: each for key, each in json.loads(line).items() if key.startswith(_MEASURED)}
    for line in content.splitlines()
  ]


def files_of(folder: Path) -> dict[str, bytes]:
  """Every file below a folder."""
  files = (path for path in folder.rglob("*") if path.is_file())
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_equal(killed: Path, undisturbed: Path) -> None:
  """Two runs, with the data sets beside them, have left the same.

  Raises:
    AssertionError: naming what differs.
  """
  runs = [folder / RUN for folder in (killed, undisturbed)]
  pairs = [folder / PAIRS for folder in (killed, undisturbed)]
  if any(each.exists() for each in pairs):
    assert files_of(pairs[0]) == files_of(pairs[1]), "the data sets differ"
  assert_same_run(*runs)


def assert_same_run(killed: Path, undisturbed: Path) -> None:
  """The last state bit for bit, every row of the metrics once, the exported encoder, the report."""
  last = steps_of(undisturbed)[-1]
  assert steps_of(killed)[-1] == last, f"the last step is {steps_of(killed)[-1]}, not {last}"
  states = [state_of(folder / "checkpoints" / str(last)) for folder in (killed, undisturbed)]
  assert states[0].keys() == states[1].keys(), "the last states have other arrays"
  differing = [name for name, found in states[0].items() if found != states[1][name]]
  assert not differing, f"arrays of the last state that differ: {differing}"
  assert rows_of(killed) == rows_of(undisturbed), "rows of metrics.jsonl differ"
  encoders = [
    (folder / "encoder" / "encoder.safetensors").read_bytes() for folder in (killed, undisturbed)
  ]
  assert encoders[0] == encoders[1], "the exported encoders differ"
  reports = [
    json.loads((folder / "report" / "metrics.json").read_text()) for folder in (killed, undisturbed)
  ]
  assert reports[0]["summary"] == reports[1]["summary"], "the reports' numbers differ"
