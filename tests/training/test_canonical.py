"""The closed form against canonical correlations by SciPy, and where its sums come from."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from scipy import fft, linalg

from tests.training.conftest import Small
from tests.training.parameters import paths
from xjepa_jax.config import Config, HeadConfig
from xjepa_jax.data.archive import Entry
from xjepa_jax.data.import_plan import plan_import
from xjepa_jax.data.pairs import Pair
from xjepa_jax.data.simulate import simulated_archive
from xjepa_jax.data.writer import write_dataset
from xjepa_jax.errors import ConfigError
from xjepa_jax.model import spectrum
from xjepa_jax.model.gradients import DIRECTIONS
from xjepa_jax.retrieval.closed_form import without_network
from xjepa_jax.training import canonical
from xjepa_jax.training.canonical_correlation import RIDGE, Maps, Moments, solve
from xjepa_jax.training.experiment import Experiment, open_experiment
from xjepa_jax.training.target import find_target

pytestmark = pytest.mark.usefixtures("compiled", "compiled_quickly")
SIDE, NUMBERS = 4, 4
RINGS = spectrum.rings(SIDE)
HEAD = HeadConfig(pooling="canonical", cells=4, numbers=3, size=48)
Spectra = Mapping[str, np.ndarray]  # sensor -> (N, P, F), rows of NaN where a pair lacks it


def correlated(keys: str, pairs: int, seed: int = 0, lacking: float = 0.0) -> dict[str, np.ndarray]:
  """Spectra with causes in common, fewer at high frequencies, and noise of each sensor's own."""
  chance = np.random.default_rng(seed)
  causes = chance.normal(size=(pairs, SIDE**2, 5)) * [3, 2, 1, 0.6, 0.3]
  slow = 1 / (1 + RINGS[:, None])
  found = {}
  for key in keys:
    shared = causes @ chance.normal(size=(5, DIRECTIONS)) * slow
    own = chance.normal(size=(pairs, SIDE**2, DIRECTIONS)) @ chance.normal(size=(9, DIRECTIONS))
    found[key] = shared + 0.3 * own + chance.normal(size=(SIDE**2, DIRECTIONS))
    found[key][chance.random(pairs) < lacking] = np.nan
  return found


def moments_of(spectra: Spectra) -> dict[tuple[str, str], Moments]:
  """Sums, a pair and a frequency after the other."""
  found = {}
  for a, b in itertools.combinations_with_replacement(spectra, 2):
    total = np.zeros((RINGS.max() + 1, DIRECTIONS, DIRECTIONS))
    first, other, count = np.zeros((SIDE**2, DIRECTIONS)), np.zeros((SIDE**2, DIRECTIONS)), 0
    for one, two in zip(spectra[a], spectra[b], strict=True):
      if np.isnan(one).any() or np.isnan(two).any():
        continue
      count, first, other = count + 1, first + one, other + two
      for place, ring in enumerate(RINGS):
        total[ring] += np.outer(one[place], two[place])
    found[a, b] = Moments(count, first, other, total)
  return found


def both(spectra: Spectra, a: str, b: str) -> tuple[np.ndarray, np.ndarray]:
  """(N, P, F) of the pairs that have both, about the mean of each frequency."""
  there = ~np.isnan(spectra[a] + spectra[b]).any(axis=(1, 2))
  one, two = spectra[a][there], spectra[b][there]
  return one - one.mean(axis=0), two - two.mean(axis=0)


def in_units(spectra: Spectra, key: str) -> np.ndarray:
  """(P, 1) the deviation of a sensor's numbers by frequency, alike in a ring."""
  own = both(spectra, key, key)[0]
  by_ring = [np.sqrt((own[:, ring == RINGS] ** 2).mean()) for ring in range(RINGS.max() + 1)]
  return np.array(by_ring)[RINGS][:, None]


def eigenproblem(spectra: Spectra) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """All roots of C w = root B w, largest first, and sensor -> (F, all) parts of w; C has all
  covariances of the sensors' cells in units of each ring, B those of each sensor alone."""
  units = {key: in_units(spectra, key) for key in spectra}
  blocks = {}
  for a, b in itertools.product(spectra, spectra):
    one, two = both(spectra, a, b)
    one, two = one / units[a], two / units[b]
    blocks[a, b] = np.einsum("npf,npg->fg", one, two) / (one.shape[0] * one.shape[1])
    if a == b:
      blocks[a, b] += RIDGE * np.trace(blocks[a, b]) / DIRECTIONS * np.eye(DIRECTIONS)
  whole = np.block([[blocks[a, b] for b in spectra] for a in spectra])
  alone = linalg.block_diag(*(blocks[key, key] for key in spectra))
  roots, vectors = linalg.eigh(whole, alone)
  parts = np.split(vectors[:, ::-1], len(spectra))
  return roots[::-1], dict(zip(spectra, parts, strict=True))


def check_against_scipy(spectra: Spectra, maps: Maps) -> None:
  """Kernels, biases and the weight of every ring."""
  keys = list(spectra)
  _, expected = eigenproblem(spectra)
  numbers = {key: spectra[key] @ maps[key]["kernel"] for key in keys}
  for key in keys:
    kernel = maps[key]["kernel"].astype(float)
    unit, other = (each / np.linalg.norm(each, axis=0) for each in (kernel, expected[key]))
    cosines = np.abs(np.sum(unit * other[:, :NUMBERS], axis=0))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)
    for ring in range(RINGS.max() + 1):
      rho, weight = np.zeros(NUMBERS), 0
      for partner in set(keys) - {key}:
        one, two = both(numbers, key, partner)
        one, two = one[:, ring == RINGS], two[:, ring == RINGS]
        spread = both(numbers, partner, partner)[0][:, ring == RINGS].std(axis=(0, 1))
        own = both(numbers, key, key)[0][:, ring == RINGS].std(axis=(0, 1))
        rho += len(one) * (one * two).mean(axis=(0, 1)) / (own * spread)
        weight += len(one)
      scale = np.clip(rho / weight, 0, 0.995) / own
      np.testing.assert_allclose(maps[key]["scale"][ring], scale, rtol=1e-4, atol=1e-5)


def means_of(spectra: Spectra) -> dict[str, np.ndarray]:
  return {key: np.arange(DIRECTIONS) / 10 + number for number, key in enumerate(spectra)}


def test_two_sensors_get_the_canonical_correlations_of_scipy() -> None:
  spectra = correlated("ab", 200)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  roots, _ = eigenproblem(spectra)
  np.testing.assert_allclose(correlations, roots[:NUMBERS] - 1, atol=1e-6)
  assert 0.9 < correlations[0] < 1 and (np.diff(correlations) < 0).all()
  check_against_scipy(spectra, maps)
  for key, mean in means_of(spectra).items():
    np.testing.assert_allclose(maps[key]["bias"], -mean @ maps[key]["kernel"], atol=1e-4)


def test_numbers_of_both_sensors_point_the_same_way_and_slow_ones_weigh_most() -> None:
  spectra = correlated("ab", 200)
  maps, _ = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  one, two = (spectra[key] @ maps[key]["kernel"] for key in "ab")
  slow = [np.corrcoef(one[:, 1, j], two[:, 1, j])[0, 1] for j in range(NUMBERS)]
  assert slow[0] > 0.9 and min(slow) > 0
  for key, numbers in (("a", one), ("b", two)):
    weights = maps[key]["scale"][RINGS] * numbers.std(axis=0)
    assert (weights[1, 1:] > weights[-1, 1:]).all() and weights[1:, -1].argmax() < 4


@pytest.mark.parametrize("lacking", [0.0, 0.4])
def test_three_sensors_get_the_largest_common_variance_of_scipy(lacking: float) -> None:
  spectra = correlated("abc", 120, lacking=lacking)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  check_against_scipy(spectra, maps)
  assert 0.8 < correlations[0] < 1


def test_pairs_that_lack_one_of_two_sensors_count_for_the_other() -> None:
  spectra = correlated("ab", 200, lacking=0.3)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  check_against_scipy(spectra, maps)
  np.testing.assert_allclose(correlations, eigenproblem(spectra)[0][:NUMBERS] - 1, atol=1e-6)


def test_a_sensor_alone_gets_its_principal_directions_as_they_are() -> None:
  spectra = correlated("a", 100)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  rows = both(spectra, "a", "a")[0]
  # Rings weigh alike, whatever the number of their frequencies.
  total = sum(
    np.cov(rows[:, ring == RINGS].reshape(-1, DIRECTIONS).T, bias=True)
    for ring in range(RINGS.max() + 1)
  )
  expected = np.linalg.svd(total)[0][:, :NUMBERS]
  np.testing.assert_allclose(np.abs(np.sum(maps["a"]["kernel"] * expected, axis=0)), 1, atol=1e-4)
  np.testing.assert_array_equal(maps["a"]["scale"], 1)
  np.testing.assert_array_equal(correlations, 1)


def test_sensors_that_share_no_pair_are_fitted_as_if_the_others_were_not_there() -> None:
  spectra = correlated("abcde", 150)
  apart = {key: np.full_like(each, np.nan) for key, each in spectra.items()}
  rows = {"a": slice(0, 50), "b": slice(0, 50), "c": slice(50, 100), "d": slice(50, 100)}
  for key, chosen in {**rows, "e": slice(100, 150)}.items():
    apart[key][chosen] = spectra[key][chosen]
  maps, correlations = solve(moments_of(apart), means_of(apart), SIDE, NUMBERS)
  found = []
  for group in ("ab", "cd", "e"):
    alone = {key: apart[key][rows.get(key, slice(100, 150))] for key in group}
    means = {key: means_of(apart)[key] for key in group}
    expected, shared = solve(moments_of(alone), means, SIDE, NUMBERS)
    found.append(shared)
    for key in group:
      for name, each in expected[key].items():
        np.testing.assert_allclose(maps[key][name], each, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(correlations, np.mean(found[:2], axis=0), rtol=1e-6)


@pytest.mark.parametrize("pairs", [0, 1, 2, 3])
def test_fewer_pairs_than_numbers_give_maps_that_tell_cells_apart(pairs: int) -> None:
  spectra = correlated("ab", pairs)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  assert np.isfinite(correlations).all() and (np.abs(correlations) <= 1).all()
  for each in maps.values():
    assert all(np.isfinite(value).all() for value in each.values())
    assert np.linalg.matrix_rank(each["kernel"]) == NUMBERS
    assert each["scale"].any()


@pytest.mark.parametrize("rounding", [0.0, 1e-9])
@pytest.mark.parametrize("constant", ["a", "ab"])
def test_images_without_contrast_do_not_blow_up_what_rounding_leaves_of_them(
  constant: str, rounding: float
) -> None:
  spectra = correlated("ab", 50)
  for key in constant:
    spectra[key] *= rounding
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, NUMBERS)
  assert np.isfinite(correlations).all()
  for each in maps.values():
    assert all(np.isfinite(value).all() and np.abs(value).max() < 1e3 for value in each.values())


def closed(config: Config, **keys: Any) -> Config:
  """The config of an encoder without a network on the same pairs."""
  plain = without_network(config)
  training = dataclasses.replace(plain.training, **keys)
  heads = {"linear": HEAD, "gradients": HeadConfig(pooling="gradients", cells=4, size=144)}
  return dataclasses.replace(plain, heads=heads, training=training)


def of_whole_images(units: Mapping[str, np.ndarray]) -> tuple[Spectra, Maps, np.ndarray]:
  """What is told of 300 images by two sensors of 6 and 9 statistics in units of any size."""
  chance = np.random.default_rng(3)
  causes = chance.normal(size=(300, 3)) * [2, 1, 0.5]
  told = {}
  for key, unit in units.items():
    own = causes @ chance.normal(size=(3, len(unit))) + chance.normal(size=(300, len(unit)))
    told[key] = ((own - own.mean(axis=0)) * unit)[:, None]
  moments = {}
  for a, b in itertools.combinations_with_replacement(told, 2):
    products = np.einsum("npf,npg->pfg", told[a], told[b])
    moments[a, b] = Moments(300.0, told[a].sum(axis=0), told[b].sum(axis=0), products)
  means = {key: np.zeros(len(unit)) for key, unit in units.items()}
  return told, *solve(moments, means, 1, 3, 1e-9, True)


def test_statistics_of_images_get_canonical_correlations_whatever_their_units() -> None:
  plain = {"a": np.ones(6), "b": np.ones(9)}
  told, maps, correlations = of_whole_images(plain)
  bases = [np.linalg.qr(each[:, 0])[0] for each in told.values()]
  expected = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
  np.testing.assert_allclose(correlations, expected[:3], atol=1e-6)
  chance = np.random.default_rng(4)
  units = {key: 10 ** chance.uniform(-2, 2, size=len(each)) for key, each in plain.items()}
  other, others, again = of_whole_images(units)
  np.testing.assert_allclose(again, correlations, atol=1e-6)
  for key in plain:
    numbers = np.abs(told[key][:, 0] @ maps[key]["kernel"])
    again = np.abs(other[key][:, 0] @ others[key]["kernel"])
    np.testing.assert_allclose(again, numbers, atol=1e-3)


def test_what_never_varies_of_images_weighs_nothing() -> None:
  units = {"a": np.array([1, 1, 0, 1, 1, 1.0]), "b": np.ones(9)}
  _, maps, correlations = of_whole_images(units)
  np.testing.assert_array_equal(maps["a"]["kernel"][2], 0)
  assert np.isfinite(maps["a"]["kernel"]).all() and correlations[0] > 0.5


def test_numbers_beyond_what_is_told_are_nothing() -> None:
  spectra = correlated("ab", 50)
  maps, correlations = solve(moments_of(spectra), means_of(spectra), SIDE, 20)
  for each in maps.values():
    assert each["kernel"].shape == (DIRECTIONS, 20) and each["scale"].shape[1] == 20
    assert np.isfinite(each["scale"]).all() and not each["kernel"][:, 18:].any()
  np.testing.assert_array_equal(correlations[18:], 0)


def test_more_statistics_than_there_are_are_refused_by_key(small: Small) -> None:
  config = closed(small.config)
  heads = {"semantic": HeadConfig(pooling="statistics", numbers=40, size=40)}
  evaluation = dataclasses.replace(config.evaluation, head="semantic")
  config = dataclasses.replace(config, heads=heads, evaluation=evaluation)
  with pytest.raises(ConfigError, match=r"'heads\.semantic\.numbers' is 40; of the 2 bands.* 32"):
    open_experiment(config, jax.devices()[:1])


@pytest.fixture(scope="module")
def plain(small: Small) -> Experiment:
  """On one device, eight pairs a batch."""
  return open_experiment(closed(small.config), jax.devices()[:1])


def fit(experiment: Experiment, most: int) -> canonical.Fit:
  """Of one head, on so many pairs at most."""
  return canonical.fit(experiment, {"linear": dataclasses.replace(HEAD, fitted=most)})["linear"]


def check_alike(maps: Maps, others: Maps, tolerance: float = 1e-4) -> None:
  """Within a share of the largest number; the sign of a number, in all sensors, is free."""
  for key, each in maps.items():
    signs = np.sign(np.sum(each["kernel"] * others[key]["kernel"], axis=0))
    for name, value in each.items():
      other = others[key][name] * (1 if name == "scale" else signs)
      np.testing.assert_allclose(value, other, atol=tolerance * np.abs(value).max())


def test_a_fit_depends_neither_on_the_batch_nor_on_the_devices(
  small: Small, plain: Experiment
) -> None:
  first = fit(plain, most := 50)
  assert first.pairs == most  # no multiple of either batch
  mesh = dataclasses.replace(small.config.mesh, replica=2, fsdp=4)
  sharded = dataclasses.replace(closed(small.config, batch=24), mesh=mesh)
  other = fit(open_experiment(sharded), most)
  assert other.pairs == first.pairs
  check_alike(first.maps, other.maps)
  np.testing.assert_allclose(first.correlations, other.correlations, atol=1e-4)
  assert f"on {first.pairs} training pairs" in str(first) and "correlate by 0." in str(first)


def test_a_fit_is_that_of_the_images_described_one_by_one(plain: Experiment) -> None:
  """The moments of spectra that SciPy's transform makes of the model's own gradients."""
  found = fit(plain, 1000)
  images: dict[str, list[np.ndarray]] = {key: [] for key in plain.inputs}
  encoder = plain.model.init(jax.random.key(0))["encoder"]
  for _, batches in plain.passes("train"):
    for batch in batches:
      described = plain.describe(encoder, batch)["descriptors"]["gradients"]
      for key, each in described.items():
        images[key] += list(np.asarray(each, float).reshape(-1, 16, DIRECTIONS))
  spectra, means = {}, {}
  for key, each in images.items():
    cells = np.stack(each)
    means[key] = cells.mean(axis=(0, 1))
    grid = (cells - means[key]).reshape(len(cells), 4, 4, DIRECTIONS)
    spectra[key] = fft.dctn(grid, norm="ortho", axes=(1, 2)).reshape(cells.shape)
  maps, correlations = solve(moments_of(spectra), means, SIDE, HEAD.numbers)
  check_alike(found.maps, maps, 1e-3)
  np.testing.assert_allclose(found.correlations, correlations, atol=1e-4)


def test_heads_fitted_together_are_fitted_as_each_alone(plain: Experiment) -> None:
  heads = {
    "fine": dataclasses.replace(HEAD, fitted=40),
    "few": dataclasses.replace(HEAD, fitted=8),
    "coarse": dataclasses.replace(HEAD, cells=2, numbers=2, size=8, fitted=40),
    "semantic": HeadConfig(pooling="statistics", numbers=6, size=6, fitted=40),
  }
  together = canonical.fit(plain, heads)
  assert list(together) == list(heads) and together["few"].pairs == 8
  for name, head in heads.items():
    alone = canonical.fit(plain, {name: head})[name]
    check_alike(together[name].maps, alone.maps)
    assert together[name].pairs == alone.pairs


def test_put_changes_the_trained_and_the_averaged_encoder_and_nothing_else(small: Small) -> None:
  mesh = dataclasses.replace(small.config.mesh, replica=2, fsdp=2, tensor=2)
  experiment = open_experiment(dataclasses.replace(closed(small.config), mesh=mesh))
  state = experiment.new_state()
  shapes = state.params["encoder"]["layouts"]["linear"]["maps"]
  chance = np.random.default_rng(0)
  maps = jax.tree.map(lambda x: chance.normal(size=x.shape).astype(np.float32), shapes)
  changed = canonical.put(state, "linear", maps)
  for encoder in (changed.params["encoder"], find_target(changed.opt_state)):
    jax.tree.map(np.testing.assert_array_equal, encoder["layouts"]["linear"]["maps"], maps)
  before, after = paths(state), paths(changed)
  assert before.keys() == after.keys()
  differing = {path for path in before if not np.array_equal(before[path], after[path])}
  expected = {path for path in before if "linear/maps" in path and "/mu/" not in path}
  assert differing == {path for path in expected if "/nu/" not in path} != set()
  assert len(differing) == 2 * 2 * 3
  for path, leaf in before.items():
    assert after[path].sharding.is_equivalent_to(leaf.sharding, leaf.ndim), path


def written(directory: str, change: Callable[[int, Pair], Pair], pairs: int = 30) -> str:
  """A data set of simulated pairs, each changed: (number, pair) -> pair."""
  archive = simulated_archive(pairs=pairs, size=16)

  def read(entry: Entry) -> Pair:
    return change(entry.source, archive.read(entry))

  altered = dataclasses.replace(archive, read=read)
  plan = plan_import(altered, shard_bytes=100_000, encoding="bytes")
  write_dataset(plan, directory)
  return directory


def fitted(small: Small, directory: str) -> canonical.Fit:
  data = dataclasses.replace(small.config.data, directories=(directory,))
  config = dataclasses.replace(closed(small.config), data=data)
  return fit(open_experiment(config, jax.devices()[:1]), 1000)


def test_a_fit_on_pairs_that_lack_a_sensor_at_random_is_finite_and_correlates(
  small: Small, tmp_path: Path
) -> None:
  def lacking(number: int, pair: Pair) -> Pair:
    kept = {
      key: each
      for place, (key, each) in enumerate(pair.observations.items())
      if number % 4 != 2 * place
    }
    return dataclasses.replace(pair, observations=kept)

  found = fitted(small, written(str(tmp_path / "pairs"), lacking))
  assert found.pairs == 24 and found.correlations[0] > 0.2
  assert all(np.isfinite(each).all() for maps in found.maps.values() for each in maps.values())


def test_a_fit_on_images_without_contrast_is_finite_and_small(small: Small, tmp_path: Path) -> None:
  def constant(_: int, pair: Pair) -> Pair:
    flat = {
      key: dataclasses.replace(each, values=np.full_like(each.values, each.values.flat[0]))
      for key, each in pair.observations.items()
    }
    return dataclasses.replace(pair, observations=flat)

  found = fitted(small, written(str(tmp_path / "pairs"), constant))
  for maps in found.maps.values():
    assert all(np.isfinite(each).all() and np.abs(each).max() < 10 for each in maps.values())


def test_a_fit_on_one_pair_is_finite(plain: Experiment) -> None:
  found = fit(plain, 1)
  assert found.pairs == 1
  for maps in found.maps.values():
    assert all(np.isfinite(each).all() for each in maps.values())
    assert np.linalg.matrix_rank(maps["kernel"]) == HEAD.numbers
