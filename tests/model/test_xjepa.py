"""The joint architecture: every route's prediction and target, traced back to who made them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.config import MaskConfig, default_config, parse_routes, resolve
from xjepa_jax.errors import ConfigError
from xjepa_jax.model.fill import seen_share
from xjepa_jax.model.inputs import sensor_inputs
from xjepa_jax.model.mask_plan import plan_masks
from xjepa_jax.model.masking import sample_masks
from xjepa_jax.model.outputs import Outputs
from xjepa_jax.model.xjepa import XJepa, build, merge
from xjepa_jax.objective import table
from xjepa_jax.sensors import Band, Sensor

SENSORS = {
  "optical": Sensor("optical", tuple(Band(name, 10.0) for name in "abc"), "uint8", "counts"),
  "radar": Sensor("radar", (Band("a", 10.0), Band("b", 10.0)), "float32", "dB"),
  "thermal": Sensor("thermal", (Band("a", 10.0),), "float32", "K"),
}
INPUTS = sensor_inputs(SENSORS, dict.fromkeys(SENSORS, (16, 16)), 4)
BATCH, KEY = 3, jax.random.key(5)
PLAN = plan_masks((4, 4), MaskConfig(blocks=2, scale=(0.15, 0.2), context=0.4))
RNG = np.random.default_rng(0)
VALUES: Any = {
  key: RNG.standard_normal((BATCH, 16, 16, given.bands)).astype(np.float32)
  for key, given in INPUTS.items()
}
SEEN: Any = {key: np.ones((BATCH, given.bands), bool) for key, given in INPUTS.items()}
PRESENT: Any = {key: np.array([True, key != "radar", True]) for key in INPUTS}


def model(*routes: str) -> XJepa:
  config = default_config()
  config.model.update(preset="debug", width=16, patch=4)
  config.predictor.update(width=8, depth=1)
  config.heads.layout.update(cells=2, size=8)
  config.heads.semantic.size = 6
  return build(resolve(config), INPUTS, parse_routes(routes, tuple(INPUTS)), jnp.float32)


# The radar and the optical sensor predict others each, so they go through the predictor apart.
MODEL = model("optical->radar", "radar->optical", "radar->thermal", "optical->optical")
PARAMETERS = drawn(jax.eval_shape(MODEL.init, KEY))
AVERAGE = drawn(jax.eval_shape(MODEL.init, KEY)["encoder"], seed=1)


def outputs(parameters: Any, average: Any, alike: bool = False) -> Outputs:
  return MODEL.outputs(parameters, average, VALUES, SEEN, PRESENT, PLAN, KEY, alike)


class Found(NamedTuple):
  """What one compilation gives to all tests.

  Attributes:
    made: outputs.
    masks: that they were made with.
    tokens: all tokens that the average makes of whole images.
    apart: predictions made route by route.
    gradients: of a loss over all outputs, with respect to parameters and average.
  """

  made: Outputs
  masks: Any
  tokens: Any
  apart: Any
  gradients: Any


@pytest.fixture(scope="module")
def found() -> Found:
  def loss(parameters: Any, average: Any) -> Any:
    made = outputs(parameters, average)
    heads = sum(x.sum() for x in jax.tree.leaves(made.descriptors))
    errors = [jnp.square(made.predicted[route] - made.target[route]) for route in made.target]
    return sum(x.mean() for x in errors) + 1e-3 * heads, made

  def everything(parameters: Any, average: Any) -> Any:
    gradients, made = jax.grad(loss, argnums=(0, 1), has_aux=True)(parameters, average)
    masks = sample_masks(KEY, PLAN, BATCH, MODEL.contexts, MODEL.targets)
    predictor = merge(MODEL.predictor, parameters["predictor"])
    apart = {}
    for route in made.predicted:
      context, target = route.split("->")
      tokens, places = made.tokens[context][None], made.positions[context][None]
      apart[route] = predictor(tokens, places, (context,), {target: masks.target[target]})[target][
        0
      ]
    return Found(made, masks, MODEL.encode(average, VALUES, SEEN)[0], apart, gradients)

  return compiled(everything, PARAMETERS, AVERAGE)


def test_who_is_seen_by_which_encoder_follows_from_the_routes() -> None:
  assert MODEL.grid == (4, 4)
  assert MODEL.contexts == ("optical", "radar")
  assert MODEL.targets == ("optical", "radar", "thermal")
  assert model("radar->optical").contexts == ("radar",)
  assert len(model().routes) == 9


def test_parameters_are_plain_float32_dicts_of_encoder_and_predictor() -> None:
  shapes = jax.eval_shape(MODEL.init, KEY)
  assert list(shapes) == ["encoder", "predictor"]
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    assert all(type(step) is jax.tree_util.DictKey for step in path)
    assert leaf.dtype == jnp.float32


def test_shapes_and_names_are_those_promised(found: Found) -> None:
  made = found.made
  targets = PLAN.blocks * PLAN.block_tokens
  assert list(made.predicted) == list(made.target)
  assert set(made.predicted) == {f"{a}->{b}" for a, b in MODEL.routes}
  for each in (*made.predicted.values(), *made.target.values()):
    assert each.shape == (BATCH, targets, 16)
  assert set(made.tokens) == set(made.positions) == {"optical", "radar"}
  assert made.tokens["radar"].shape == (BATCH, PLAN.context_tokens, 16)
  assert made.descriptors["layout"]["optical"].shape == (BATCH, 8)
  assert made.descriptors["semantic"]["radar"].shape == (BATCH, 6)
  assert made.seen["layout"]["optical"].shape == (BATCH, 4)
  assert made.seen["semantic"]["radar"].shape == (BATCH, 1)
  assert set(made.present) == set(made.grid) == set(INPUTS)


def test_each_sensor_shows_the_tokens_of_its_own_mask(found: Found) -> None:
  made, masks = found.made, found.masks
  assert list(masks.context) == ["optical", "radar"]
  for key, places in masks.context.items():
    np.testing.assert_array_equal(made.positions[key], places)
  assert (masks.context["optical"] != masks.context["radar"]).any()


def test_each_sensor_is_asked_for_at_places_of_its_own_which_others_may_show(found: Found) -> None:
  context, target = found.masks
  assert set(target) == {"optical", "radar", "thermal"}
  assert (target["optical"] != target["radar"]).any()
  shown = {
    (a, b): sum(np.isin(context[a][i], target[b][i]).sum() for i in range(BATCH))
    for a in context
    for b in target
  }
  assert shown["optical", "optical"] == shown["radar", "radar"] == 0
  assert shown["optical", "radar"] > 0 and shown["radar", "thermal"] > 0


def test_a_cell_counts_as_seen_where_a_context_token_lies(found: Found) -> None:
  for key, places in found.made.positions.items():
    for sample in range(BATCH):
      # Two by two cells of two by two tokens.
      cells = {(place // 4 // 2) * 2 + place % 4 // 2 for place in places[sample].tolist()}
      seen = found.made.seen["layout"][key][sample]
      assert set(np.flatnonzero(seen).tolist()) == cells
    assert found.made.seen["semantic"][key].all()


def test_targets_are_normalised_tokens_of_the_average_s_look_at_the_whole_image(
  found: Found,
) -> None:
  for route, each in found.made.target.items():
    for sample in range(BATCH):
      target = route.split("->")[1]
      chosen = found.tokens[target][sample][found.masks.target[target][sample].ravel()]
      plain = {"scale": np.ones(16), "bias": np.zeros(16)}
      expected = reference.layer_norm(plain, chosen.astype(np.float64))
      np.testing.assert_allclose(each[sample], expected, rtol=1e-4, atol=1e-4)


def test_targets_of_a_head_are_its_cells_at_a_place_standardised_over_the_samples_there_are() -> (
  None
):
  config = default_config()
  config.model.update(preset="debug", width=16, patch=4)
  config.heads.layout.update(pooling="canonical", cells=8, numbers=2, size=100)
  config.target.of = "layout"
  cells = build(resolve(config), INPUTS, parse_routes((), tuple(INPUTS)), jnp.float32)
  parameters = drawn(jax.eval_shape(cells.init, KEY))

  def everything(parameters: Any) -> Any:
    encoder = parameters["encoder"]
    made = cells.outputs(parameters, encoder, VALUES, SEEN, PRESENT, PLAN, KEY)
    masks = sample_masks(KEY, PLAN, BATCH, cells.contexts, cells.targets)
    tokens, _ = cells.encode(encoder, VALUES, SEEN)
    module = merge(cells.encoder, encoder)
    centre = jnp.zeros(100)
    whole = {
      key: module.patches("layout", key, VALUES[key], tokens[key], None, centre) for key in VALUES
    }
    return made, masks, whole

  made, masks, whole = compiled(everything, parameters)
  for route, found in made.target.items():
    key = route.split("->")[1]
    assert found.shape == made.predicted[route].shape == (BATCH, PLAN.blocks * PLAN.block_tokens, 8)
    # 8 x 8 cells of 2 numbers, of which each of the 4 x 4 tokens has 2 x 2.
    apart = whole[key].astype(np.float64).reshape(BATCH, 8, 8, 2)
    there = np.flatnonzero(PRESENT[key])
    apart = (apart - apart[there].mean(axis=0)) / np.sqrt(apart[there].var(axis=0) + 1e-6)
    for sample in there:
      for number, place in enumerate(masks.target[key][sample].ravel()):
        row, column = 2 * (place // 4), 2 * (place % 4)
        expected = apart[sample, row : row + 2, column : column + 2].ravel()
        np.testing.assert_allclose(found[sample, number], expected, rtol=1e-3, atol=1e-3)


def test_a_head_whose_cells_do_not_divide_among_tokens_is_no_target() -> None:
  config = default_config()
  config.model.update(preset="debug", width=16, patch=4)
  config.heads.layout.update(pooling="canonical", cells=6, numbers=2, size=72)
  for head, found in (("layout", "6 x 6 cells"), ("semantic", "pooling 'mean'")):
    config.target.of = head
    with pytest.raises(ConfigError, match=f"'target.of' is '{head}'.*{found}.*4 x 4 tokens"):
      build(resolve(config), INPUTS, parse_routes((), tuple(INPUTS)), jnp.float32)


def test_routes_that_go_together_are_as_if_each_went_alone(found: Found) -> None:
  for route, each in found.made.predicted.items():
    np.testing.assert_allclose(each, found.apart[route], rtol=1e-4, atol=1e-5)
    assert np.abs(each - each[0]).max() > 0.01


def test_no_gradient_reaches_the_average_and_some_reaches_every_trained_part(found: Found) -> None:
  trained, average = found.gradients
  assert not any(leaf.any() for leaf in jax.tree.leaves(average))
  for path, leaf in jax.tree_util.tree_leaves_with_path(trained):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    # A sensor that is no context has a stem for the average alone, and a tag for nobody.
    assert leaf.any() != ("stems/thermal" in name or "context_tags/thermal" in name), name


def test_one_mask_for_all_samples_where_predictions_are_to_be_compared() -> None:
  made = compiled(lambda p, a: outputs(p, a, alike=True).positions, PARAMETERS, AVERAGE)
  for places in made.values():
    assert places.shape == (BATCH, PLAN.context_tokens)
    np.testing.assert_array_equal(places, np.broadcast_to(places[:1], places.shape))


def test_fill_neither_counts_nor_teaches_and_no_image_of_fill_is_nan() -> None:
  """The radar saw the left half of the first image, nothing of the second, all of the third."""
  values = {key: each.copy() for key, each in VALUES.items()}
  values["radar"][0, :, 8:] = 0
  values["radar"][1] = 0

  def loss(parameters: Any, values: Any) -> Any:
    everybody: Any = {key: np.ones(BATCH, bool) for key in INPUTS}
    made = MODEL.outputs(parameters, AVERAGE, values, SEEN, everybody, PLAN, KEY)
    settings = {"latent": {}, "psa": {}, "vicreg": {}, "tokens": {"term": "vicreg", "on": "tokens"}}
    total, metrics = table.build(settings).loss({}, made, 0, KEY)
    return total, (made, metrics)

  (gradients, moved), (made, metrics) = compiled(
    jax.grad(loss, argnums=(0, 1), has_aux=True), PARAMETERS, values
  )
  for found in (gradients, moved, metrics):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
  masks = compiled(
    lambda: sample_masks(KEY, PLAN, BATCH, MODEL.contexts, MODEL.targets, fill_of(values))
  )
  left = masks.target["radar"].reshape(BATCH, -1) % 4 < 2
  np.testing.assert_array_equal(
    made.counted["optical->radar"], np.stack([left[0], 0 * left[1], 1 | left[2]]).astype(bool)
  )
  np.testing.assert_array_equal(made.counted["radar->optical"].all(axis=1), [True, False, True])
  shown = made.tokens["radar"].any(axis=-1)
  places = made.positions["radar"]
  np.testing.assert_array_equal(shown, np.stack([places[0] % 4 < 2, 0 * shown[1], 1 | shown[2]]))
  assert not made.seen["layout"]["radar"][1].any() and not made.seen["semantic"]["radar"][1].any()
  # What a target of fill or a token of fill is predicted from or as is not asked for.
  assert not moved["radar"][1].any() and not moved["radar"][0, :, 8:].any()


def fill_of(values: Any) -> dict[str, Any]:
  return {key: seen_share(INPUTS[key], values[key]) > 0 for key in INPUTS}
