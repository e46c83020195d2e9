"""Runs the trials of configs/trials.py and writes the tables of docs/trials.md.

  python -m benchmarks.ombria_dates --src OMBRIA/pairs.csv    # folds of both dates, at 128 pixels
  python -m benchmarks.trials

All trials of a data set have one budget and differ in what configs/trials.py says. Nothing is
chosen: what is measured is the encoder before the first step, which is the closed form, and both
encoders after the last one. A finished trial is kept in --work and not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from configs.trials import COMPARED, TRIALS, VARIANTS, get_config
from xjepa_jax.config import resolve
from xjepa_jax.paths import user_path
from xjepa_jax.retrieval.describe import centres, describe_by_several, normalised
from xjepa_jax.retrieval.directions import evaluate_directions
from xjepa_jax.retrieval.encoder_choice import encoders
from xjepa_jax.retrieval.quantise import archive_side, cut
from xjepa_jax.training import canonical
from xjepa_jax.training.experiment import Experiment, device_batch, like, open_experiment
from xjepa_jax.training.setup import simulate_if_asked
from xjepa_jax.training.state import TrainState
from xjepa_jax.versions import versions

_BEGIN, _END = "<!-- trials: written by benchmarks/trials.py -->", "<!-- /trials -->"
_HERE = os.path.dirname(os.path.abspath(__file__))
_PAGE = os.path.join(_HERE, "..", "docs", "trials.md")
_RESULTS = os.path.join(_HERE, "results", "trials.json")
_SIZES = (1020, 252, 60)  # numbers of a layout that are kept, int8
_EVERY = 50
Found = dict[str, dict[str, dict[str, float]]]  # encoder -> split -> measure -> per cent


def main(argv: list[str] | None = None) -> None:
  """Runs what is not finished, then writes the tables."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.trials", description=(__doc__ or "").splitlines()[0]
  )
  parser.add_argument("--only", choices=tuple(TRIALS), help="one data set")
  parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=tuple(VARIANTS))
  parser.add_argument("--seeds", nargs="+", type=int, help="those of configs/trials.py if none")
  parser.add_argument(
    "--work", type=user_path, default="runs/trials", help="directory of the results"
  )
  parser.add_argument(
    "--page", type=user_path, default=_PAGE, help="document whose tables are replaced"
  )
  args = parser.parse_args(argv)
  tables = []
  for dataset in [args.only] if args.only else list(TRIALS):
    found = {
      variant: [trial(dataset, variant, seed, args.work) for seed in args.seeds or seeds]
      for variant, seeds in TRIALS[dataset].items()
      if variant in args.variants
    }
    tables.append(table(dataset, found))
    print(tables[-1], flush=True)
  _write(args.page, "\n".join(tables))
  if set(args.variants) == set(VARIANTS) and not (args.seeds or args.only):
    _keep(args.work)


def trial(dataset: str, variant: str, seed: int, work: str) -> dict[str, Any]:
  """What a trial found: run now, or before."""
  path = os.path.join(work, f"{dataset}-{variant.replace(', ', '-')}-{seed}.json")
  if os.path.exists(path):
    with open(path, encoding="utf-8") as file:
      return dict(json.load(file))
  config = resolve(get_config(f"{dataset},{variant},{seed}"))
  simulate_if_asked(config)
  # Pairs that are mixed in are trained on and not asked for: they have no other splits.
  first = dataclasses.replace(config.data, directories=config.data.directories[:1], weights=())
  experiment = open_experiment(dataclasses.replace(config, data=first))
  training = like(experiment, config)
  started = time.monotonic()
  state = _fitted(training)
  curve: dict[str, Any] = {"0": measure(experiment, state)}
  step = training.step
  with training.training_pipeline() as pipeline:
    batches = pipeline.batches(0)
    last = config.training.steps
    for done in range(1, last + 1):
      state, metrics = step(state, device_batch(next(batches)[1]))
      if done % _EVERY == 0 or done == last:
        curve[str(done)] = measure(experiment, state)
        losses = {key: float(value) for key, value in metrics.items() if key.startswith("loss/")}
        print(f"{dataset}, {variant}, seed {seed}, step {done}: {losses}", flush=True)
        print(json.dumps(curve[str(done)]), flush=True)
    batches.close()
  found = {"curve": curve, "losses": losses, "seconds": time.monotonic() - started}
  os.makedirs(work, exist_ok=True)
  with open(path, "w", encoding="utf-8") as file:
    json.dump(found, file, indent=1)
  jax.clear_caches()
  return found


def _fitted(experiment: Experiment) -> TrainState:
  state = experiment.new_state()
  fitted = canonical.fit(experiment, canonical.fitted_heads(experiment.config.heads))
  for name, each in fitted.items():
    state = canonical.put(state, name, each.maps)
  return state


def measure(experiment: Experiment, state: TrainState) -> Found:
  """encoder -> split -> measure -> per cent, the mean of both directions.

  R@1 by the layout, as stored: its first numbers, int8. By labels, where there are any, F1@5 and
  nDCG@10 of the semantic head.
  """
  describers = {
    name: functools.partial(experiment.describe, encoder)
    for name, encoder in encoders(state).items()
  }
  centre = centres(experiment, describers)
  found: Found = {name: {} for name in describers}
  for split in ("validation", "test"):
    described = describe_by_several(experiment, describers, split, 10_000)
    for name, each in described.items():
      vectors = normalised(each.descriptors, centre[name][0])
      measured: dict[str, float] = {}
      for size in _SIZES:
        stored = {
          key: archive_side(cut(values, size), "int8") for key, values in vectors["layout"].items()
        }
        measured[f"R@1, {size}"] = _across(stored, each.present, None, "recall@1")
      labels = each.label_sets()
      if labels is not None:
        for key in ("f1_query@5", "ndcg@10"):
          measured[key] = _across(vectors["semantic"], each.present, labels, key)
      found[name][split] = measured
  return found


def _across(
  vectors: Mapping[str, np.ndarray],
  present: Mapping[str, np.ndarray],
  labels: np.ndarray | None,
  metric: str,
) -> float:
  rows = evaluate_directions(vectors, present, labels, (1, 5, 10))
  return 100 * float(np.mean([r.metrics[metric] for r in rows if r.query != r.archive]))


def table(dataset: str, found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
  """The trials of one data set as Markdown.

  Means over seeds, and in brackets what was added to the closed form: the mean difference within a
  seed, with its standard error. What prediction adds is the difference of two trials of one seed.
  """
  curves = {variant: [trial["curve"] for trial in trials] for variant, trials in found.items()}
  most = max(curves.values(), key=len)
  last = max(most[0], key=int)
  lines = [f"### {dataset}: {last} steps", ""]
  for split in most[0]["0"]["averaged"]:
    names = list(most[0]["0"]["averaged"][split])
    lines += [f"The split {split!r}:", "", f"| trial | encoder | seeds | {' | '.join(names)} |"]
    lines += ["|---|---|---:|" + "---:|" * len(names)]
    start = [curve["0"]["averaged"][split] for curve in most]
    means = [f"{np.mean([each[name] for each in start]):.1f}" for name in names]
    lines.append(f"| before the first step | | {len(most)} | {' | '.join(means)} |")
    for variant, encoder in itertools.product(curves, ("averaged", "trained")):
      ends = [curve[last][encoder][split] for curve in curves[variant]]
      starts = [curve["0"][encoder][split] for curve in curves[variant]]
      cells = [
        f"{np.mean([each[k] for each in ends]):.1f} ({_more(ends, starts, k)})" for k in names
      ]
      lines.append(f"| {variant} | {encoder} | {len(ends)} | {' | '.join(cells)} |")
    for variant, alone in COMPARED.items():
      if variant in curves and alone in curves:
        seeds = min(len(curves[variant]), len(curves[alone]))  # the first are alike
        ends, others = (
          [curve[last]["averaged"][split] for curve in curves[each][:seeds]]
          for each in (variant, alone)
        )
        cells = [_more(ends, others, name) for name in names]
        lines.append(
          f"| **{variant}**, less {alone} | averaged | {len(ends)} | {' | '.join(cells)} |"
        )
    lines.append("")
  return "\n".join(lines)


def _more(
  ones: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]], name: str
) -> str:
  """The mean difference, seed by seed, and its standard error, of a single seed none."""
  values = np.array([one[name] - other[name] for one, other in zip(ones, others, strict=True)])
  if len(values) == 1:
    return f"{values[0]:+.1f}"
  return f"{values.mean():+.1f} ± {values.std(ddof=1) / len(values) ** 0.5:.1f}"


def _keep(work: str) -> None:
  """Every number of every trial in one committed file, with what they were made by."""
  found = {
    f"{dataset}, {variant}, {seed}": trial(dataset, variant, seed, work)
    for dataset, variants in TRIALS.items()
    for variant, seeds in variants.items()
    for seed in seeds
  }
  about = {**versions(), "cores": os.cpu_count(), "command": "python -m benchmarks.trials"}
  with open(_RESULTS, "w", encoding="utf-8") as file:
    json.dump({"about": about, "trials": found}, file, indent=1)
    file.write("\n")


def _write(page: str, tables: str) -> None:
  with open(page, encoding="utf-8") as file:
    content = file.read()
  before, _, rest = content.partition(_BEGIN)
  _, _, after = rest.partition(_END)
  with open(page, "w", encoding="utf-8") as file:
    file.write(f"{before}{_BEGIN}\n\n{tables}\n{_END}{after}")


if __name__ == "__main__":
  main()
