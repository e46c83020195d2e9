"""Heads: pooling and projection against brute force."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compiling import compiled
from tests.model import reference
from tests.model.reference import drawn
from xjepa_jax.config import HeadConfig
from xjepa_jax.model.cells import cell_weights
from xjepa_jax.model.heads import Head
from xjepa_jax.model.trunk import BlockSpec
from xjepa_jax.model.xjepa import merge, split

GRID, WIDTH = (4, 6), 8
RNG = np.random.default_rng(0)
TOKENS = RNG.standard_normal((3, 24, WIDTH)).astype(np.float32)
INDICES = np.stack([RNG.permutation(24)[:9] for _ in range(3)]).astype(np.int32)
SOME = np.take_along_axis(TOKENS, INDICES[:, :, None], axis=1)


def head(dtype: Any = jnp.float32, **settings: Any) -> tuple[Any, Any]:
  config, spec = HeadConfig(**settings), BlockSpec(WIDTH, 2, dtype=dtype)
  definition, shapes = split(nnx.eval_shape(lambda: Head(config, spec, GRID, nnx.Rngs(0))))
  return definition, drawn(shapes)


def described(definition: Any, parameters: Any, tokens: Any, indices: Any = None) -> Any:
  return compiled(lambda p, x: merge(definition, p)(x, indices), parameters, tokens)


@pytest.mark.parametrize("hidden", [0, 10])
def test_a_grid_head_projects_each_cell_alike_and_puts_first_numbers_first(hidden: int) -> None:
  definition, parameters = head(pooling="grid", cells=2, size=20, hidden=hidden)
  found = described(definition, parameters, SOME, INDICES)
  assert found.shape == (3, 20) and found.dtype == np.float32
  cell = cell_weights(GRID, 2).argmax(axis=1)  # each token lies in one cell
  for sample in range(3):
    for number in range(4):
      inside = SOME[sample][cell[INDICES[sample]] == number].astype(np.float64)
      pooled = (inside if len(inside) else SOME[sample]).mean(axis=0)
      if hidden:
        pooled = reference.gelu(reference.linear(parameters["hidden"], pooled))
      expected = reference.linear(parameters["project"], pooled)
      np.testing.assert_allclose(found[sample, number::4], expected, atol=1e-5)


def test_the_first_numbers_of_a_grid_descriptor_are_a_smaller_descriptor_of_the_same_cells() -> (
  None
):
  definition, parameters = head(pooling="grid", cells=2, size=20)
  smaller = jax.tree.map(lambda leaf: leaf[..., :2], parameters)
  expected = described(head(pooling="grid", cells=2, size=8)[0], smaller, SOME, INDICES)
  found = described(definition, parameters, SOME, INDICES)
  np.testing.assert_allclose(found[:, :8], expected, atol=1e-6)


def test_a_mean_head_does_not_depend_on_places_or_order() -> None:
  definition, parameters = head(pooling="mean", size=6)
  found = described(definition, parameters, SOME, INDICES)
  expected = reference.linear(parameters["project"], SOME.astype(np.float64).mean(axis=1))
  np.testing.assert_allclose(found, expected, atol=1e-5)
  np.testing.assert_allclose(described(definition, parameters, SOME[:, ::-1]), expected, atol=1e-5)


def test_an_attention_head_weighs_tokens_by_a_learned_query() -> None:
  definition, parameters = head(pooling="attention", size=6)
  found = described(definition, parameters, TOKENS)
  for sample in range(3):
    weights = np.exp(TOKENS[sample].astype(np.float64) @ parameters["query"])
    pooled = weights @ TOKENS[sample] / weights.sum()
    expected = reference.linear(parameters["project"], pooled)
    np.testing.assert_allclose(found[sample], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention", "grid"])
def test_descriptors_of_bfloat16_tokens_are_float32_and_close(pooling: str) -> None:
  settings = {"pooling": pooling, "cells": 2, "size": 8}
  low, parameters = head(jnp.bfloat16, **settings)
  exact = described(*head(**settings), TOKENS)
  found = described(low, parameters, TOKENS.astype(jnp.bfloat16))
  assert found.dtype == np.float32
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(parameters))
  np.testing.assert_allclose(found, exact, atol=0.03)


@pytest.mark.parametrize("pooling", ["mean", "attention", "grid"])
def test_a_hidden_token_is_as_one_that_is_not_there(pooling: str) -> None:
  definition, parameters = head(pooling=pooling, cells=2, size=8)
  hidden = SOME.copy()
  hidden[:, [1, 4, 5]] = 0
  kept = [0, 2, 3, 6, 7, 8]
  found = described(definition, parameters, hidden, INDICES)
  expected = described(definition, parameters, SOME[:, kept], INDICES[:, kept])
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "attention", "grid"])
def test_an_image_of_which_nothing_was_seen_has_a_finite_descriptor_and_no_cell(
  pooling: str,
) -> None:
  definition, parameters = head(pooling=pooling, cells=2, size=8)

  def made(parameters: Any, tokens: Any) -> Any:
    module = merge(definition, parameters)
    total, gradient = jax.value_and_grad(lambda x: module(x, INDICES).sum())(tokens)
    return total, gradient, module.seen(tokens, INDICES)

  total, gradient, seen = compiled(made, parameters, np.zeros_like(SOME))
  assert np.isfinite(total) and np.isfinite(gradient).all()
  assert seen.shape == (3, 4 if pooling == "grid" else 1) and not seen.any()


def test_patches_of_a_cell_add_up_to_what_a_grid_head_says_of_it() -> None:
  definition, parameters = head(pooling="grid", cells=2, size=12)
  centre = np.random.default_rng(5).normal(size=12).astype(np.float32)
  found = described(definition, parameters, TOKENS) - centre
  module = merge(definition, parameters)
  patches = np.asarray(module.patches(jnp.asarray(TOKENS), jnp.asarray(centre)))
  cells = cell_weights(module.grid, 2).argmax(axis=1)
  means = np.stack([patches[:, cells == cell].mean(axis=1) for cell in range(4)], axis=1)
  # The first number of every cell comes first.
  np.testing.assert_allclose(means.swapaxes(1, 2).reshape(len(TOKENS), -1), found, atol=1e-5)


def test_patches_of_a_mean_head_have_its_descriptor_as_their_mean() -> None:
  definition, parameters = head(pooling="mean", size=6)
  centre = np.zeros(6, np.float32)
  patches = merge(definition, parameters).patches(jnp.asarray(TOKENS), jnp.asarray(centre))
  expected = described(definition, parameters, TOKENS)
  np.testing.assert_allclose(np.asarray(patches).mean(axis=1), expected, atol=1e-5)
