"""BigEarthNet's 43 CORINE class names of v1, and the 19 classes into which they were merged."""

from __future__ import annotations

from xjepa_jax.errors import ArchiveError

# BigEarthNet-19 (Sumbul et al. 2021; label_indices.json of BigEarthNet-S2_19-classes_models): each
# class, and the CORINE names of v1 merged into it; none if the class only kept its name.
BEN19: dict[str, tuple[str, ...]] = {
  "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
  "Industrial or commercial units": (),
  "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
  "Permanent crops": (
    "Vineyards",
    "Fruit trees and berry plantations",
    "Olive groves",
    "Annual crops associated with permanent crops",
  ),
  "Pastures": (),
  "Complex cultivation patterns": (),
  "Land principally occupied by agriculture, with significant areas of natural vegetation": (),
  "Agro-forestry areas": (),
  "Broad-leaved forest": (),
  "Coniferous forest": (),
  "Mixed forest": (),
  "Natural grassland and sparsely vegetated areas": (
    "Natural grassland",
    "Sparsely vegetated areas",
  ),
  "Moors, heathland and sclerophyllous vegetation": (
    "Moors and heathland",
    "Sclerophyllous vegetation",
  ),
  "Transitional woodland, shrub": ("Transitional woodland/shrub",),
  "Beaches, dunes, sands": (),
  "Inland wetlands": ("Inland marshes", "Peatbogs"),
  "Coastal wetlands": ("Salt marshes", "Salines"),
  "Inland waters": ("Water courses", "Water bodies"),
  "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
BEN19_DROPPED = (
  "Road and rail networks and associated land",
  "Port areas",
  "Airports",
  "Mineral extraction sites",
  "Dump sites",
  "Construction sites",
  "Green urban areas",
  "Sport and leisure facilities",
  "Bare rock",
  "Burnt areas",
  "Intertidal flats",
)

_TO_19: dict[str, str] = {
  **{old: new for new, olds in BEN19.items() for old in olds or (new,)},
  **dict.fromkeys(BEN19_DROPPED, ""),
}


def to_19(where: str, labels: tuple[str, ...]) -> tuple[str, ...]:
  """The BigEarthNet-19 classes of v1 labels, each once, without the classes that it dropped."""
  for label in labels:
    if label not in _TO_19:
      raise ArchiveError(f"{where}: the label {label!r} is not one of BigEarthNet's 43.")
  return tuple(name for name in dict.fromkeys(_TO_19[label] for label in labels) if name)
