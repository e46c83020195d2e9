"""Configs: every key is checked by name, and what is written to JSON comes back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xjepa_jax.config import Config, HeadConfig, default_config, describe_keys, resolve, to_dict
from xjepa_jax.errors import ConfigError

KEYS = [key for key, _, _ in describe_keys()]


def nested(key: str, value: Any) -> dict[str, Any]:
  """{"a": {"b": value}} of "a.b"."""
  *groups, name = key.split(".")
  content = {name: value}
  for group in reversed(groups):
    content = {group: content}
  return content


def refusal(content: Any) -> str:
  with pytest.raises(ConfigError) as error:
    resolve(content)
  assert "\n" not in str(error.value)
  return str(error.value)


def test_the_defaults_resolve_to_the_defaults() -> None:
  assert resolve(default_config()) == Config()
  assert resolve({}) == Config()


def test_a_config_comes_back_from_json_the_same() -> None:
  config = default_config()
  config.data.directories = ("pairs", "more")
  config.data.weights = (0.25, 1)
  config.routes = ("a->b",)
  config.telemetry.profile = (10, 20)
  config.heads.mine = {"pooling": "attention", "size": 32}
  config.objective.latent.routes = ("a->b",)
  resolved = resolve(config)
  assert resolved.heads["mine"] == HeadConfig("attention", size=32)
  assert resolved.data.weights == (0.25, 1.0) and resolved.telemetry.profile == (10, 20)
  written = json.dumps(to_dict(resolved))
  assert resolve(json.loads(written)) == resolved
  assert json.dumps(to_dict(resolve(json.loads(written)))) == written


def test_masks_of_a_config_from_before_each_sensor_had_its_own_are_read() -> None:
  """As an encoder that was exported then describes its training; no weight depends on them."""
  older = {"overlap": False, "same_context": True, "blocks": 4, "context": 0.75}
  mask = resolve({"mask": older}).mask
  assert (mask.same_context, mask.visible) == (True, Config().mask.visible)


def test_a_config_cannot_be_changed() -> None:
  config = resolve(default_config())
  with pytest.raises(AttributeError):
    config.training.steps = 2  # type: ignore[misc]
  with pytest.raises(TypeError):
    config.objective["latent"]["weight"] = 2.0  # type: ignore[index]


def test_a_key_with_a_letter_too_few_is_refused_and_the_right_one_named() -> None:
  for key in KEYS:
    group, _, name = key.rpartition(".")
    wrong = ".".join(filter(None, [group, name[:-2] + name[-1]]))
    said = refusal(nested(wrong, None))
    assert repr(wrong) in said
    # "b1" without its "b" is like no key.
    assert f"Did you mean {key!r}?" in said or len(name) < 3, key


@pytest.mark.parametrize(
  ("wrong", "right"),
  [
    ("training.learning_rate", "optimizer.learning_rate"),
    ("weight_decay", "optimizer.weight_decay"),
    ("optimiser.clip", "optimizer"),
    ("heads.layout.pool", "heads.layout.pooling"),
  ],
)
def test_a_key_of_another_group_is_found(wrong: str, right: str) -> None:
  assert f"Did you mean {right!r}?" in refusal(nested(wrong, {}))


def test_a_key_like_no_other_is_refused_with_those_there_are() -> None:
  said = refusal({"target": {"zzzz": 1}})
  assert "'target.zzzz'" in said and "schedule, lag, momentum, final_momentum" in said
  assert "mean" not in said


def test_a_value_of_another_type_is_refused_by_its_key() -> None:
  for key in KEYS:
    assert f"config key {key!r} is None; expected" in refusal(nested(key, None))


@pytest.mark.parametrize(
  ("key", "value", "allowed"),
  [
    ("training.batch", True, "expected int"),
    ("training.batch", 8.0, "expected int"),
    ("training.batch", 0, "allowed: at least 1"),
    ("data.verify", 1, "expected bool"),
    ("data.directories", "pairs", "expected a tuple of str"),
    ("data.weights", (True,), "expected float"),
    ("optimizer.b1", 1.5, "allowed: at least 0, at most 0.9999"),
    ("optimizer.clip", -0.1, "allowed: at least 0"),
    ("optimizer.learning_rate", float("nan"), "allowed: at least 0"),
    ("optimizer.learning_rate", float("inf"), "allowed: at least 0"),
    ("mask.scale", (0.1, float("nan")), "allowed: a finite number"),
    ("mask.visible", 1.5, "allowed: at least 0, at most 1"),
    ("model.patch", 65, "allowed: at least 1, at most 64"),
    ("model.preset", "tyni", "allowed: none, debug, tiny, small"),
    ("model.shared_layers", -2, "allowed: at least -1"),
    ("model", 3, "expected a group of keys"),
    ("heads", 3, "expected a group of keys"),
    ("heads.layout", "grid", "expected a group of keys"),
    ("heads.layout.cells", 0, "allowed: at least 1"),
    ("objective.latent", 1.0, "expected a group of keys"),
  ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(
  key: str, value: Any, allowed: str
) -> None:
  said = refusal(nested(key, value))
  assert key in said and allowed in said
