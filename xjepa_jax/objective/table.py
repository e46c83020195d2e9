"""The terms that a config can name, and how a config's `objective` becomes an `Objective`.

The terms are a dict literal rather than a registry that imports fill, so that they are all found in
one place. A caller may pass further terms to `build`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xjepa_jax.config.fields import read
from xjepa_jax.errors import ConfigError, did_you_mean
from xjepa_jax.objective.contrastive import Contrastive
from xjepa_jax.objective.cosine import Cosine
from xjepa_jax.objective.latent import Latent
from xjepa_jax.objective.objective import Objective
from xjepa_jax.objective.places import Places
from xjepa_jax.objective.psa import PSA
from xjepa_jax.objective.sigreg import SIGReg
from xjepa_jax.objective.term import Term
from xjepa_jax.objective.vicreg import VICReg

TERMS: dict[str, type[Term]] = {
  "latent": Latent,
  "vicreg": VICReg,
  "psa": PSA,
  "sigreg": SIGReg,
  "contrastive": Contrastive,
  "cosine": Cosine,
  "places": Places,
}


def build(
  settings: Mapping[str, Mapping[str, Any]], terms: Mapping[str, type[Term]] | None = None
) -> Objective:
  """Build the objective that a config describes.

    build({"latent": {}, "spread": {"term": "vicreg", "weight": 0.5, "on": "tokens"}})

  Args:
    settings: label -> the term's options, and under "term" its name (default: the label).
    terms: further terms by name, in addition to `TERMS`.

  Raises:
    ConfigError: there is no term, a term or key is unknown, or a value cannot work. Keys are named
      as objective.<label>.<key>.
  """
  known = {**TERMS, **(terms or {})}
  if not settings:
    raise ConfigError(f"objective names no term; choose from {', '.join(known)}.")
  return Objective({label: _term(label, entry, known) for label, entry in settings.items()})


def _term(label: str, entry: Any, known: Mapping[str, type[Term]]) -> Term:
  where = f"objective.{label}"
  if not isinstance(entry, Mapping):
    raise ConfigError(
      f"config key {where!r} is {entry!r}; expected a group of keys such as weight."
    )
  name = entry.get("term", label)
  if not isinstance(name, str) or name not in known:
    raise ConfigError(
      f"config key '{where}.term' is {name!r}, which is no term; there are {', '.join(known)}."
      + did_you_mean(name, known)
    )
  options = {key: value for key, value in entry.items() if key != "term"}
  try:
    term: Term = read(options, known[name], f"{where}.")
  except ConfigError as error:
    text = str(error)
    raise ConfigError(text if text.startswith("config key") else f"{where}.{text}") from error
  return term
