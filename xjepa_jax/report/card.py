"""The model card that is exported with an encoder."""

from __future__ import annotations

from xjepa_jax.model.xjepa import XJepa
from xjepa_jax.report.findings import Findings
from xjepa_jax.report.table import markdown_table


def model_card(model: XJepa, findings: Findings) -> str:
  """Write the card in Markdown: the encoder's input and output, its results and its limits."""
  inputs = "\n".join(
    f"- `{key}`: {given.sensor.product}, {given.height} x {given.width} pixels, "
    f"{given.sensor.dtype} in {given.sensor.units}, bands {', '.join(given.sensor.band_names)}"
    for key, given in model.inputs.items()
  )
  heads = "\n".join(
    f"- `{name}`: {head.size} numbers, pooling {head.pooling}"
    for name, head in model.config.heads.items()
  )
  example = next(iter(model.inputs))
  warnings = "\n\n".join(each for each in (findings.collapse, *findings.warnings) if each)
  protocol = "\n".join(f"- {key}: {value}" for key, value in findings.protocol.items())
  return f"""# {findings.title}

An encoder of co-located scenes, trained by predicting one sensor's latents from another's
(X-JEPA) with `xjepa_jax`. Descriptors of the same place seen by different sensors are close.

```python
import xjepa_jax

encoder = xjepa_jax.load_encoder("encoder")
descriptors = encoder.describe({{"{example}": images}})  # (B, H, W, C) as stored
```

## Takes

{inputs}

Values go in as the product stores them; scaling is part of the encoder.

## Gives

{heads}

## Reached

{markdown_table(findings.summary)}

{protocol}

{warnings}

## Not for

Scenes unlike those that it was trained on, sensors or units other than those named, and finding
things much smaller than a patch. Scores are similarities, not probabilities.
"""
