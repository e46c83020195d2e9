"""Token maps: the components are those of a brute-force decomposition, the colours those of the
components, and tokens that do not differ are not painted as if they did."""

from __future__ import annotations

import numpy as np
import pytest

from xjepa_jax.report.findings import Findings, TokenMap
from xjepa_jax.report.token_maps import colours, fit_pca, token_sheet


def one_pair(**tokens: np.ndarray) -> TokenMap:
  blank = np.zeros((4, 4, 3), np.uint8)
  grids = {sensor: (len(values), 1) for sensor, values in tokens.items()}
  return TokenMap("pair", dict.fromkeys(tokens, blank), tokens, grids)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
  rng = np.random.default_rng(1)
  tokens = rng.normal(size=(200, 24)) @ rng.normal(size=(24, 24)) + 5
  _, values, rows = np.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
  pca = fit_pca(tokens)
  signs = np.sign(np.sum(pca.components * rows[:3], axis=1, keepdims=True))
  np.testing.assert_allclose(pca.components, signs * rows[:3], atol=1e-9)
  np.testing.assert_allclose(pca.share, values[:3] ** 2 / np.sum(values**2), rtol=1e-9)
  assert (pca.components[np.arange(3), np.abs(pca.components).argmax(1)] > 0).all()


def test_colours_are_the_joint_components_between_their_percentiles() -> None:
  rng = np.random.default_rng(2)
  optical, radar = rng.normal(size=(30, 6)), rng.normal(size=(20, 6)) + 1
  every = np.concatenate([optical, radar])
  _, _, rows = np.linalg.svd(every - every.mean(0), full_matrices=False)
  largest = np.take_along_axis(rows[:3], np.abs(rows[:3]).argmax(1)[:, None], 1)
  projected = (every - every.mean(0)) @ (rows[:3] * np.sign(largest)).T
  low, high = np.percentile(projected, (2, 98), axis=0)
  expected = np.round(np.clip((projected - low) / (high - low), 0, 1) * 255)
  (found,), _ = colours([one_pair(optical=optical, radar=radar)])
  got = np.concatenate([found["optical"][:, 0], found["radar"][:, 0]])
  assert np.abs(got - expected).max() <= 1  # rounding at a half
  assert found["optical"].dtype == np.uint8 and found["optical"].shape == (30, 1, 3)


def test_equal_tokens_of_two_sensors_have_equal_colours() -> None:
  tokens = np.random.default_rng(3).normal(size=(16, 8))
  (found,), _ = colours([one_pair(a=tokens, b=tokens[::-1])])
  np.testing.assert_array_equal(found["a"], found["b"][::-1])


def test_tokens_that_do_not_differ_are_black_and_broken_ones_grey() -> None:
  same = np.full((9, 5), 0.3) + 1e-15 * np.random.default_rng(4).normal(size=(9, 5))
  (found,), pca = colours([one_pair(a=same)])
  assert (found["a"] == 0).all() and (pca.share == 0).all()
  broken = np.random.default_rng(5).normal(size=(9, 5))
  broken[4, 2] = np.nan
  (found,), _ = colours([one_pair(a=broken)])
  assert (found["a"][4, 0] == 128).all()
  assert len(np.unique(np.delete(found["a"], 4, 0))) > 5


def test_tokens_of_two_dimensions_leave_the_third_colour_out() -> None:
  (found,), pca = colours([one_pair(a=np.random.default_rng(6).normal(size=(9, 2)))])
  assert (found["a"][..., 2] == 0).all() and pca.share[2] == 0


def test_tokens_that_do_not_fill_their_grid_are_refused() -> None:
  pair = TokenMap("p7", {}, {"a": np.zeros((5, 3))}, {"a": (2, 3)})
  with pytest.raises(ValueError, match=r"'p7', sensor 'a': 5 tokens .* 2 x 3"):
    colours([pair])


def test_the_sheet_shows_every_map_of_every_pair(findings: Findings) -> None:
  pixels = np.asarray(token_sheet(findings.token_maps)).reshape(-1, 3)
  shown = {tuple(colour) for colour in np.unique(pixels, axis=0)}
  maps, _ = colours(findings.token_maps)
  for pair in maps:
    for tokens in pair.values():
      assert {tuple(colour) for colour in tokens.reshape(-1, 3)} <= shown
