"""Writes an archive of simulated scenes, or times embedding one, in a process of its own.

  python -m benchmarks.peers.embedding_measure write geotiff DIRECTORY --scenes 64
  python -m benchmarks.peers.embedding_measure time geotiff DIRECTORY --encoder DIR --out DIR

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import time

_TILES = 64  # of a scene of 512 pixels, the encoder's images being 64
_FORWARD_BATCHES = 24


def write(kind: str, directory: str, scenes: int) -> None:
  """Scenes of 512 pixels as GeoTIFF, or as many pixels in pairs of 64; once."""
  from xjepa_jax.data import simulate

  if os.path.exists(directory):
    return
  with contextlib.redirect_stdout(io.StringIO()):
    if kind == "geotiff":
      simulate.main(["--out", directory, "--pairs", str(scenes), "--size", "512", "--geotiff"])
    else:
      simulate.main(["--out", directory, "--pairs", str(_TILES * scenes), "--size", "64"])


def measure(kind: str, directory: str, encoder: str, out: str) -> dict[str, float]:
  """Tiles and seconds of embedding, and images/s of the encoder alone, before and after."""
  from xjepa_jax.retrieval import embed

  before = forward(encoder)
  sensors = ["--sensor", "s1=s1/*.tif", "--sensor", "s2=s2/*.tif"] if kind == "geotiff" else []
  printed = io.StringIO()
  with contextlib.redirect_stdout(printed):
    status = embed.main(["--encoder", encoder, "--archive", directory, "--out", out, *sensors])
  found = re.search(r"([\d,]+) tiles in ([\d,.]+) s", printed.getvalue())
  if status or not found:
    raise RuntimeError(f"embed ended with {status}: {printed.getvalue()}")
  tiles, seconds = (float(text.replace(",", "")) for text in found.groups())
  return {"tiles": int(tiles), "seconds": seconds, "forward": max(before, forward(encoder))}


def forward(directory: str) -> float:
  """Images/s of all sensors alike, in the batches that embed computes."""
  import jax
  import numpy as np

  from xjepa_jax.export import load_encoder

  encoder = load_encoder(directory)
  seconds = 0.0
  rows = 16 * len(jax.local_devices())  # embed's on a CPU
  rng = np.random.default_rng(0)
  for key, given in encoder.inputs.items():
    shape = (rows, given.height, given.width, len(given.sensor.bands))
    values = (rng.random(shape) * 50).astype(given.sensor.dtype)
    np.asarray(encoder.start({key: values}, trust_units=True, unseen="take"))
    begun = time.perf_counter()
    waiting = [encoder.start({key: values}, trust_units=True, unseen="take") for _ in range(3)]
    for number in range(_FORWARD_BATCHES):
      np.asarray(waiting[number])
      if len(waiting) < _FORWARD_BATCHES:
        waiting.append(encoder.start({key: values}, trust_units=True, unseen="take"))
    seconds += time.perf_counter() - begun
  return _FORWARD_BATCHES * rows * len(encoder.inputs) / seconds


if __name__ == "__main__":
  parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.embedding_measure")
  parser.add_argument("what", choices=("write", "time"))
  parser.add_argument("kind", choices=("pairs", "geotiff"))
  parser.add_argument("directory")
  parser.add_argument("--scenes", type=int, default=64)
  parser.add_argument("--encoder", default="")
  parser.add_argument("--out", default="")
  args = parser.parse_args()
  if args.what == "write":
    write(args.kind, args.directory, args.scenes)
    print(json.dumps({"kind": args.kind}))
  else:
    print(json.dumps(measure(args.kind, args.directory, args.encoder, args.out)))
