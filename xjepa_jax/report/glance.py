"""Pictures for those who watch a run: a small one of each validation, and those of its report."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from xjepa_jax.report.gather import Pictures, examples, token_maps
from xjepa_jax.report.retrieval_grid import retrieval_grid
from xjepa_jax.report.token_maps import token_sheet
from xjepa_jax.retrieval.evaluation import Evaluation, chosen_encoder, first_tokens
from xjepa_jax.training.experiment import Experiment
from xjepa_jax.training.state import TrainState

_QUERIES = 2  # of a direction
_TOKEN_PAIRS = 3


def glance(
  experiment: Experiment, state: TrainState, evaluation: Evaluation
) -> dict[str, np.ndarray]:
  """A few queries of the validation split and what they find; of one sensor alone, its tokens.

  Args:
    experiment, state: what was evaluated.
    evaluation: of the validation split.

  Returns:
    Name -> (H, W, 3) uint8, as the metric writers take pictures.
  """
  split = experiment.config.data.validation
  with Pictures(experiment, split) as pictures:
    if found := examples(experiment, evaluation, pictures, _QUERIES):
      return {"validation/retrieval": _array(retrieval_grid(found))}
    tokens = first_tokens(experiment, chosen_encoder(experiment, state), split)
    maps = token_maps(experiment, evaluation.described, tokens, pictures, _TOKEN_PAIRS)
  return {"validation/tokens": _array(token_sheet(maps))} if maps else {}


def report_pictures(pictures: Mapping[str, bytes]) -> dict[str, np.ndarray]:
  """A report's PNG files, by file name, as the metric writers take pictures."""
  return {
    f"report/{name.rpartition('.')[0]}": _array(Image.open(io.BytesIO(content)))
    for name, content in pictures.items()
  }


def _array(image: Image.Image) -> np.ndarray:
  return np.asarray(image.convert("RGB"))
