"""`metrics.json`: every number of a report, with its meaning and origin."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from xjepa_jax.data import storage
from xjepa_jax.report.findings import Example, Findings, definition

FORMAT = "xjepa_jax report 1"


def write_metrics(path: str, findings: Findings) -> None:
  """Write all numbers of a report. NaN and infinity become null, which every JSON reader accepts.

  Raises:
    OSError: the file cannot be written.
  """
  # A NaN that was missed is an error here; written out, strict JSON readers would refuse the file.
  text = json.dumps(to_json(findings), allow_nan=False, ensure_ascii=False, indent=2)
  storage.write_file(path, text.encode() + b"\n")


def to_json(findings: Findings) -> dict[str, Any]:
  """Return the content of `metrics.json` as plain values that JSON can hold."""
  keys = dict.fromkeys(key for row in findings.summary for key in row)
  return {
    "format": FORMAT,
    "title": findings.title,
    "summary": plain(findings.summary),
    "definitions": {key: text for key in keys if (text := definition(key)) is not None},
    "protocol": plain(findings.protocol),
    "geometry": plain(findings.geometry),
    "collapse": findings.collapse,
    "warnings": plain(findings.warnings),
    "last": plain(last_values(findings)),
    "examples": [_example(example) for example in findings.examples],
    "timing": plain(findings.timing),
    "versions": plain(findings.versions),
    "config": plain(findings.config),
  }


def last_values(findings: Findings) -> dict[str, float]:
  """Return the last value of everything in the history; `metrics.jsonl` has the whole history."""
  last: dict[str, float] = {}
  for row in findings.history:
    last.update(row)
  return last


def plain(value: Any) -> Any:
  """Convert nested values to JSON's types: NaN and infinity to null, tuples and arrays to lists."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
  if isinstance(value, Mapping):
    return {str(key): plain(part) for key, part in value.items()}
  if isinstance(value, str | bool | int) or value is None:
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if hasattr(value, "tolist"):  # NumPy's and JAX's arrays and scalars
    return plain(value.tolist())
  if isinstance(value, list | tuple | set | frozenset):
    return [plain(part) for part in value]
  return str(value)


def _example(example: Example) -> dict[str, Any]:
  return {
    "direction": example.direction,
    "query": example.pair_id,
    "true_rank": int(example.true_rank),
    "archive_size": int(example.archive_size),
    "answers": [
      {"pair_id": answer.pair_id, "score": plain(float(answer.score)), "true": bool(answer.true)}
      for answer in example.answers
    ],
  }
