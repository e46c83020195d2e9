"""Peak rates of matrix products of common devices, for model FLOPs utilisation.

These are dense rates of one JAX device, from the vendors' data sheets. "float32" is the rate of
float32 products at JAX's default precision: one bfloat16 pass on TPUs, TF32 on NVIDIA GPUs from
Ampere on.
"""

from __future__ import annotations

# Prefix of `jax.Device.device_kind` -> FLOP/s in (bfloat16, float32); the longest prefix that
# matches counts. A TPU7x chip is two devices.
_PEAKS = {
  "TPU v4": (275e12, 275e12),
  "TPU v4 lite": (137e12, 137e12),
  "TPU v5 lite": (197e12, 197e12),
  "TPU v5e": (197e12, 197e12),
  "TPU v5": (459e12, 459e12),
  "TPU v5p": (459e12, 459e12),
  "TPU v6 lite": (918e12, 918e12),
  "TPU v6e": (918e12, 918e12),
  "TPU7x": (1153.5e12, 1153.5e12),
  "NVIDIA A100": (312e12, 156e12),
  "NVIDIA A10G": (70e12, 35e12),
  "NVIDIA A40": (149.7e12, 74.8e12),
  "NVIDIA L4": (121e12, 60e12),
  "NVIDIA L40": (181e12, 90.5e12),
  "NVIDIA L40S": (362e12, 183e12),
  "NVIDIA H100": (989.4e12, 494.7e12),
  "NVIDIA H100 PCIe": (756e12, 378e12),
  "NVIDIA H100 NVL": (835e12, 417.5e12),
  "NVIDIA H200": (989.4e12, 494.7e12),
  "NVIDIA H200 NVL": (835e12, 417.5e12),
  "NVIDIA GH200": (989.4e12, 494.7e12),
  "NVIDIA B200": (2250e12, 1100e12),
  "NVIDIA GB200": (2500e12, 1250e12),
}


def peak_flops(device_kind: str, precision: str = "bfloat16") -> float | None:
  """Return the peak FLOP/s of one device, or None if unknown, as for a CPU or a part of a GPU.

  Args:
    device_kind: as in `jax.devices()[0].device_kind`: "TPU v5 lite", "NVIDIA H100 80GB HBM3".
    precision: of the arrays that are multiplied, "bfloat16" or "float32".
  """
  # The prefix must end at a word: "NVIDIA L4" must not match "NVIDIA L40".
  fitting = [kind for kind in _PEAKS if f"{device_kind} ".startswith((f"{kind} ", f"{kind}-"))]
  if not fitting or " MIG " in device_kind or precision not in ("bfloat16", "float32"):
    return None
  return _PEAKS[max(fitting, key=len)][("bfloat16", "float32").index(precision)]
