"""Keys in words: each has a meaning, and says what is allowed."""

from __future__ import annotations

from xjepa_jax.config import default_config, describe_keys


def test_every_key_has_a_meaning_and_says_what_is_allowed() -> None:
  described = {key: (default, meaning) for key, default, meaning in describe_keys()}
  assert described["model.patch"] == (8, "pixels along a side (at least 1, at most 64)")
  assert described["data.train"] == ("train", "split trained on")
  assert described["evaluation.protocol"][1].startswith("by which the end of a run is measured (")
  forgets = "how it forgets: power by a lag, the others by a momentum"
  assert described["target.schedule"][1] == f"{forgets} (power, linear, cosine, constant)"
  flat = default_config()
  for key, (default, meaning) in described.items():
    assert meaning
    value = flat[key] if "." not in key else flat[key.split(".")[0]][key.split(".")[1]]
    assert (value.to_dict() if hasattr(value, "to_dict") else value) == default
