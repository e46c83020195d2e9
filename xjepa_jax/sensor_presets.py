"""Presets of sensors: products that many archives hold, to be named in an import.

Statistics are those of BigEarthNet's training split (Sentinel-1 GRD in dB, Sentinel-2 L2A before
processing baseline 04.00). A product without published statistics has none in its preset. An import
always computes them from its training split, and replaces those given here.
"""

from __future__ import annotations

import dataclasses

from xjepa_jax.errors import SensorError, did_you_mean
from xjepa_jax.sensors import Band, Channel, Scaling, Sensor

# Central wavelength of Sentinel-2A in nm, ground sampling distance in metres (ESA, Sentinel-2 MSI
# user guide).
_S2_BANDS = {
  "B01": (443, 60),
  "B02": (492, 10),
  "B03": (560, 10),
  "B04": (665, 10),
  "B05": (704, 20),
  "B06": (741, 20),
  "B07": (783, 20),
  "B08": (833, 10),
  "B8A": (865, 20),
  "B09": (945, 60),
  "B10": (1374, 60),
  "B11": (1614, 20),
  "B12": (2202, 20),
}
# BigEarthNet, training split: mean and standard deviation of reflectance x 1e4.
_S2_STATISTICS = {
  "B01": (361, 575),
  "B02": (438, 607),
  "B03": (614, 603),
  "B04": (588, 685),
  "B05": (943, 738),
  "B06": (1770, 1100),
  "B07": (2050, 1276),
  "B08": (2193, 1369),
  "B8A": (2236, 1357),
  "B09": (2241, 1316),
  "B11": (1568, 1070),
  "B12": (998, 814),
}
_L2A = tuple(name for name in _S2_BANDS if name != "B10")
_BEN14K = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B11", "B12", "B8A")
_TRUE_COLOUR = (Channel("B04", 0, 2500), Channel("B03", 0, 2500), Channel("B02", 0, 2500))


def _sentinel1(product: str, mean: tuple[float, ...], std: tuple[float, ...]) -> Sensor:
  return Sensor(
    product=product,
    bands=(Band("VV", 10, polarisation="VV"), Band("VH", 10, polarisation="VH")),
    dtype="float32",
    units="dB",
    nodata=float("nan"),
    scaling=Scaling(clip=(-50.0, 30.0), mean=mean, std=std),
    display=(Channel("VV", -20, 0), Channel("VH", -27, -7), Channel("VV", 2, 14, minus="VH")),
  )


def _sentinel2(
  product: str, bands: tuple[str, ...], offset: float = 0, surface: bool = True
) -> Sensor:
  mean, std = zip(*(_S2_STATISTICS[name] for name in bands), strict=True) if surface else ((), ())
  return Sensor(
    product=product,
    bands=tuple(Band(name, _S2_BANDS[name][1], wavelength=_S2_BANDS[name][0]) for name in bands),
    dtype="uint16",
    units="reflectance x 1e4",
    nodata=0,
    scaling=Scaling(
      offset=float(offset),
      clip=(0.0, 10000.0),
      mean=tuple(map(float, mean)),
      std=tuple(map(float, std)),
    ),
    display=_TRUE_COLOUR,
  )


PRESETS: dict[str, Sensor] = {
  "sentinel1_grd": _sentinel1("Sentinel-1 GRD, sigma0", (-12.64, -19.35), (5.13, 5.59)),
  "sentinel1_rtc": _sentinel1("Sentinel-1 RTC, gamma0", (), ()),
  "sentinel2_l2a": _sentinel2("Sentinel-2 L2A", _L2A),
  "sentinel2_l2a_n0400": _sentinel2(
    "Sentinel-2 L2A, processing baseline 04.00 or later", _L2A, offset=-1000
  ),
  "sentinel2_l1c": _sentinel2("Sentinel-2 L1C", tuple(_S2_BANDS), surface=False),
  "sentinel2_l1c_n0400": _sentinel2(
    "Sentinel-2 L1C, processing baseline 04.00 or later",
    tuple(_S2_BANDS),
    offset=-1000,
    surface=False,
  ),
  "sentinel2_ben14k": _sentinel2("Sentinel-2 L2A, the 10 bands of BEN-14K", _BEN14K),
  "rgb": Sensor(
    product="RGB",
    bands=(Band("R", 10, 665), Band("G", 10, 560), Band("B", 10, 492)),
    dtype="uint8",
    units="digital number",
    scaling=Scaling(normalise="standard", mean=(127.5,) * 3, std=(73.9,) * 3),
    display=(Channel("R", 0, 255), Channel("G", 0, 255), Channel("B", 0, 255)),
  ),
  "grey": Sensor(
    product="one grey band",
    bands=(Band("grey", 10),),
    dtype="uint8",
    units="digital number",
    scaling=Scaling(normalise="standard", mean=(127.5,), std=(73.9,)),
    display=(Channel("grey", 0, 255),),
  ),
}


def preset(name: str, **changes: object) -> Sensor:
  """The named preset, with fields replaced: `preset("grey", product="VV", nodata=255)`.

  Raises:
    SensorError: there is no preset of that name, or a change makes the sensor invalid.
  """
  if name not in PRESETS:
    raise SensorError(
      f"no sensor preset {name!r}; there are {', '.join(PRESETS)}.{did_you_mean(name, PRESETS)}"
    )
  return dataclasses.replace(PRESETS[name], **changes)  # type: ignore[arg-type]
