"""The end of a run: its best state is evaluated on the test split, exported and reported.

All processes take part in the evaluation, because its arrays are sharded over all of them. From
there on the first process works alone: it reports, exports and prints.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

from xjepa_jax.export import export_encoder
from xjepa_jax.processes import barriers
from xjepa_jax.report.card import model_card
from xjepa_jax.report.findings import Findings
from xjepa_jax.report.gather import gather
from xjepa_jax.report.glance import report_pictures
from xjepa_jax.report.page import draw, write_report
from xjepa_jax.report.table import HEADLINE, text_table
from xjepa_jax.retrieval.baselines import baseline_rows
from xjepa_jax.retrieval.closed_form import closed_form, finds_less
from xjepa_jax.retrieval.confidence import to_json
from xjepa_jax.retrieval.encoder_choice import encoders
from xjepa_jax.retrieval.end_evaluation import evaluate_at_end
from xjepa_jax.retrieval.evaluation import first_tokens
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.json_lines import read_history
from xjepa_jax.training.mesh import on_every_device
from xjepa_jax.training.progress import say
from xjepa_jax.training.state import TrainState
from xjepa_jax.training.writers import Writers


@dataclasses.dataclass(frozen=True)
class Trained:
  """The result of training.

  Attributes:
    state: the state that is evaluated and exported.
    encoder: which of its encoders is, see `retrieval.encoder_choice`.
    last: the last step of the run; the state is of an earlier step if that was better.
    verdict: what is wrong with the embedding space, or "".
    warnings: other remarks on the run, a sentence or two each.
    timing: seconds and rates, by name.
  """

  state: TrainState
  encoder: str
  last: int
  verdict: str
  warnings: Sequence[str]
  timing: Mapping[str, float]


def conclude(experiment: Experiment, trained: Trained, writers: Writers, workdir: str) -> str:
  """Evaluate, report and export, and print the table. Every process has to call this.

  Returns:
    The path of the report's page; "" on all processes but the first.
  """
  say(f"Evaluating by the protocol {experiment.config.evaluation.protocol!r}")
  started = time.monotonic()
  measured = evaluate_at_end(experiment, trained.state, trained.encoder)
  evaluation, split = measured.evaluation, measured.protocol.archive
  encoder = encoders(trained.state)[trained.encoder]
  tokens = first_tokens(experiment, encoder, split)
  # Every process takes part in gathering what the first one exports.
  encoder = on_every_device(experiment.mesh, encoder)
  predictor = on_every_device(experiment.mesh, trained.state.params["predictor"])
  plain = closed_form(experiment, measured.protocol)
  # Nothing below needs the devices of other processes.
  if not barriers.is_first():
    return ""
  head = experiment.config.evaluation.head
  less = finds_less(evaluation.rows[head], plain.rows)
  findings = gather(
    experiment,
    evaluation,
    [*plain.rows, *baseline_rows(experiment, measured.protocol)],
    tokens,
    split,
    encoder=trained.encoder,
    title=f"X-JEPA: {', '.join(experiment.inputs)}",
    history=read_history(f"{workdir}/metrics.jsonl"),
    verdict=trained.verdict,
    warnings=[*trained.warnings, *([less] if less else [])],
    timing={**trained.timing, "evaluation_seconds": time.monotonic() - started},
  )
  findings = dataclasses.replace(
    findings, protocol={**measured.protocol.words(), **findings.protocol, **plain.protocol}
  )
  page = _report(findings, f"{workdir}/report", writers, trained.last)
  steps = int(trained.state.step)
  export_encoder(
    f"{workdir}/encoder",
    experiment.model,
    encoder,
    evaluation.centre,
    head,
    {
      "steps": steps,
      "encoder": trained.encoder,
      "results": findings.summary,
      "geometry": findings.geometry,
    },
    model_card(experiment.model, findings),
    {"predictor": predictor, "centre": measured.predicted_centre} if predictor else None,
    {
      head: {way: to_json(fitted) for way, fitted in ways.items()}
      for head, ways in measured.confidence.items()
    },
  )
  _tell(findings, measured.protocol.headline, f"{workdir}/encoder", page)
  return page


def _report(findings: Findings, directory: str, writers: Writers, step: int) -> str:
  pictures = draw(findings)
  writers.images(step, report_pictures(pictures))
  return write_report(directory, findings, pictures)


def _tell(findings: Findings, headline: Sequence[str], encoder: str, page: str) -> None:
  """Print the summary on stdout; a protocol whose columns the usual table lacks gets its own."""
  if findings.summary:
    columns = (*headline, "queries", "archive_size")
    print(text_table(findings.summary, None if set(headline) <= set(HEADLINE) else columns))
  if findings.collapse:
    print(findings.collapse)
  for warning in findings.warnings:
    print(warning)
  print(f"Encoder: {encoder}\nReport:  {page}")
