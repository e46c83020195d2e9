"""Keys in words: each has a meaning, and says what is allowed."""

from __future__ import annotations

from xjepa_jax.config import default_config, describe_keys


def test_every_key_has_a_meaning_and_says_what_is_allowed() -> None:
  described = {key: (default, meaning) for key, default, meaning in describe_keys()}
  assert described["model.patch"] == (8, "side of a patch in pixels (at least 1, at most 64)")
  assert described["data.train"] == ("train", "split to train on")
  assert described["evaluation.protocol"][1].startswith("retrieval protocol of the final eval")
  schedule = "schedule of the average; power is set by a lag, the others by a momentum"
  assert described["target.schedule"][1] == f"{schedule} (power, linear, cosine, constant)"
  flat = default_config()
  for key, (default, meaning) in described.items():
    assert meaning
    value = flat[key] if "." not in key else flat[key.split(".")[0]][key.split(".")[1]]
    assert (value.to_dict() if hasattr(value, "to_dict") else value) == default
