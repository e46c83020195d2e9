"""Pictures for watching a run: a small one per validation, and those of its report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from xjepa_jax.report.gather import Pictures, examples, has_examples, token_maps
from xjepa_jax.report.retrieval_grid import retrieval_grid
from xjepa_jax.report.token_maps import token_sheet
from xjepa_jax.retrieval.evaluation import Evaluation, first_tokens
from xjepa_jax.training.experiment import Experiment

_QUERIES = 2  # per direction
_TOKEN_PAIRS = 3


def glance(
  experiment: Experiment,
  encoder: Any,
  evaluation: Evaluation,
  shown: bool = True,
) -> dict[str, np.ndarray]:
  """Show a few validation queries with their answers, or the tokens where there is only one sensor.

  Every process has to call this, because all of them compute the tokens.

  Args:
    experiment: the run.
    encoder: parameters of the encoder that was evaluated.
    evaluation: results on the validation split.
    shown: whether this process shows pictures; if not, it returns none.

  Returns:
    Name -> (H, W, 3) uint8, as the metric writers take pictures.
  """
  split = experiment.config.data.validation
  across = has_examples(experiment, evaluation)
  tokens = {} if across else first_tokens(experiment, encoder, split)
  if not shown:
    return {}
  with Pictures(experiment, split) as pictures:
    if across:
      found = examples(experiment, evaluation, pictures, _QUERIES)
      return {"validation/retrieval": _array(retrieval_grid(found))}
    maps = token_maps(experiment, evaluation.described, tokens, pictures, _TOKEN_PAIRS)
  return {"validation/tokens": _array(token_sheet(maps))} if maps else {}


def report_pictures(pictures: Mapping[str, bytes]) -> dict[str, np.ndarray]:
  """Return a report's PNG files by file name, as the metric writers take pictures."""
  return {
    f"report/{name.rpartition('.')[0]}": _array(Image.open(io.BytesIO(content)))
    for name, content in pictures.items()
  }


def _array(image: Image.Image) -> np.ndarray:
  return np.asarray(image.convert("RGB"))
