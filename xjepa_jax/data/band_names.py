"""Names of bands as files and catalogues write them, read out of what they call their bands.

Descriptions are free text: "B4", "S2_B04", "B4, central wavelength 665 nm", "Sigma0_VV_db", "red",
"Gray", "Band 1". One that holds the name of one band, as a word of its own, names that band; any
other names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_MSI = frozenset([*(f"B{number:02}" for number in range(1, 13)), "B8A"])  # Sentinel-2
_RADAR = frozenset(["VV", "VH", "HH", "HV"])
# STAC's common names, which stand alone: "red edge" and "red lichen" are no red band.
_COLOURS = {
  "RED": ("R", "B04"),
  "GREEN": ("G", "B03"),
  "BLUE": ("B", "B02"),
  "NIR": ("N", "B08"),
}


def plain_name(text: str) -> str:
  """A band's name as most spell it: "b8a" is "B8A", "B2" is "B02"."""
  name = text.strip().upper()
  return f"B0{name[1]}" if re.fullmatch(r"B\d", name) else name


def named_bands(descriptions: Sequence[str], wanted: Collection[str]) -> list[str]:
  """Which band each description names, as `plain_name` spells it; "" where it names none.

  Args:
    descriptions: of a file's bands.
    wanted: plain names of the bands of a sensor, by which the kind of names is known: where it has
      VV, HH is a band's name too.
  """
  known = {name for name in wanted if len(name) > 1}
  for kind in (_MSI, _RADAR):
    if not kind.isdisjoint(wanted):
      known |= kind
  found = [_named(text, wanted, known) for text in descriptions]
  # B1 to B9 and on, without B8A, are numbers that a program gave; Sentinel-2 has no such bands.
  counted = [f"B{number}" for number in range(1, len(found) + 1)]
  if len(found) > 8 and [text.strip().upper() for text in descriptions] == counted:
    return [""] * len(found) if "B8A" in wanted else found
  return found


def names_spectrum(text: str) -> bool:
  """Whether a description names a band of any kind of sensor."""
  return bool(_named(text, (), _MSI | _RADAR)) or text.strip().upper() in _COLOURS


def _named(text: str, wanted: Collection[str], known: Collection[str]) -> str:
  plain = plain_name(text)
  if plain in wanted:
    return plain
  for name in _COLOURS.get(plain, ()):
    if name in wanted:
      return name
  words = {plain_name(word) for word in re.split(r"[^A-Za-z0-9]+", text)}
  found = words.intersection(known)
  return found.pop() if len(found) == 1 else ""
