"""The table of terms, and the objective that a config describes with it."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xjepa_jax.errors import ConfigError
from xjepa_jax.objective import options
from xjepa_jax.objective.contrastive import contrastive
from xjepa_jax.objective.cosine import cosine
from xjepa_jax.objective.latent import latent
from xjepa_jax.objective.nested import nested
from xjepa_jax.objective.places import places
from xjepa_jax.objective.psa import psa
from xjepa_jax.objective.sigreg import sigreg
from xjepa_jax.objective.term import Term
from xjepa_jax.objective.vicreg import vicreg
from xjepa_jax.objective.weighted import Objective, Weighted

TERMS: dict[str, Callable[..., Term]] = {
  "latent": latent,
  "vicreg": vicreg,
  "psa": psa,
  "sigreg": sigreg,
  "contrastive": contrastive,
  "cosine": cosine,
  "places": places,
}
# Those that compare samples: of a batch they say something else than the mean over its parts.
OVER_SAMPLES = ("vicreg", "psa", "sigreg", "contrastive")
WEIGHING = ("weight", "warmup", "start", "end")


def build(settings: Mapping[str, Mapping[str, Any]]) -> Objective:
  """The objective that a config describes.

    build({"latent": {}, "spread": {"term": "vicreg", "weight": 0.5, "on": "tokens"}})

  Args:
    settings: label -> the term's settings: "term", its name in `TERMS` (the label if not given);
      "weight" (1), "warmup", "start", "end" as in `Weighted`; and the term's own options.

  Raises:
    ConfigError: there is no term, a term or key is unknown, or a value cannot work. Keys are named
      as objective.<label>.<key>.
  """
  if not settings:
    raise ConfigError(f"objective names no term; choose from {', '.join(TERMS)}.")
  return Objective({label: _weighted(label, entry) for label, entry in settings.items()})


def _weighted(label: str, entry: Any) -> Weighted:
  where = f"objective.{label}"
  if not isinstance(entry, Mapping):
    raise ConfigError(f"{where} is {entry!r}; expected a group of keys such as weight.")
  name = entry.get("term", label)
  if not isinstance(name, str) or name not in TERMS:
    raise ConfigError(f"{where}.term is {name!r}, which is no term{_nearest(name, TERMS)}")
  parameters = inspect.signature(TERMS[name]).parameters
  for key in entry:
    known = ("term", *WEIGHING, *parameters)
    if key not in known:
      raise ConfigError(f"{where}.{key} is no key of the term {name!r}{_nearest(key, known)}")
  try:
    term = TERMS[name](**{key: entry[key] for key in parameters if key in entry})
    if "on" in parameters:
      term = nested(term, str(entry.get("on", parameters["on"].default)))
    weighted = Weighted(
      term,
      weight=options.number("weight", entry.get("weight", 1.0), least=0),
      warmup=options.whole("warmup", entry.get("warmup", 0)),
      start=options.whole("start", entry.get("start", 0)),
      end=options.whole("end", entry.get("end", 0)),
    )
  except ConfigError as error:
    raise ConfigError(f"{where}.{error}") from error
  if 0 < weighted.end <= weighted.start:
    raise ConfigError(
      f"{where}.end is {weighted.end}; expected 0 (never) or a step after start, {weighted.start}."
    )
  return weighted


def _nearest(name: Any, known: Iterable[str]) -> str:
  known = list(known)
  close = difflib.get_close_matches(str(name), known, n=1)
  return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}."
