"""Recognises the names of bands in the descriptions that files and catalogues give them.

Descriptions are free text: "B4", "S2_B04", "B4, central wavelength 665 nm", "Sigma0_VV_db", "red",
"Gray", "Band 1". A description that contains the name of exactly one band, as a separate word,
names that band; any other names none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_MSI = frozenset([*(f"B{number:02}" for number in range(1, 13)), "B8A"])  # Sentinel-2
_RADAR = frozenset(["VV", "VH", "HH", "HV"])
# STAC's common names count only alone: neither "red edge" nor "red lichen" is the red band.
_COLOURS = {
  "RED": ("R", "B04"),
  "GREEN": ("G", "B03"),
  "BLUE": ("B", "B02"),
  "NIR": ("N", "B08"),
}


def plain_name(text: str) -> str:
  """A band's name in its usual spelling: "b8a" is "B8A", "B2" is "B02"."""
  name = text.strip().upper()
  return f"B0{name[1]}" if re.fullmatch(r"B\d", name) else name


def named_bands(descriptions: Sequence[str], wanted: Collection[str]) -> list[str]:
  """The band that each description names, spelled as by `plain_name`; "" where it names none.

  Args:
    descriptions: descriptions of a file's bands.
    wanted: plain names of a sensor's bands. They also tell which family of names counts: if VV is
      wanted, HH is recognised as a band's name too.
  """
  known = {name for name in wanted if len(name) > 1}
  for kind in (_MSI, _RADAR):
    if not kind.isdisjoint(wanted):
      known |= kind
  found = [_named(text, wanted, known) for text in descriptions]
  # B1 to B9 and on, without B8A, are numbers given by a program, since Sentinel-2 has B8A after B8.
  counted = [f"B{number}" for number in range(1, len(found) + 1)]
  if len(found) > 8 and [text.strip().upper() for text in descriptions] == counted:
    return [""] * len(found) if "B8A" in wanted else found
  return found


def names_spectrum(text: str) -> bool:
  """Whether a description names a band of any known kind of sensor."""
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
