"""Routes and bands, the entries of a config that are small texts."""

from __future__ import annotations

import re

import pytest

from xjepa_jax.config import parse_bands, parse_routes
from xjepa_jax.errors import ConfigError


def test_routes_are_every_ordered_pair_or_those_named() -> None:
  assert parse_routes((), ("a", "b")) == (("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"))
  assert parse_routes((), ("a",)) == (("a", "a"),)
  assert parse_routes(("b->a", " a -> a "), ("a", "b")) == (("b", "a"), ("a", "a"))


@pytest.mark.parametrize("route", ["a", "a->c", "a->b->a", "a-b", "->a", ""])
def test_a_route_of_another_form_is_refused(route: str) -> None:
  with pytest.raises(ConfigError, match=f"'routes' has {re.escape(repr(route))}.*a, b"):
    parse_routes((route,), ("a", "b"))


def test_a_route_is_named_once() -> None:
  with pytest.raises(ConfigError, match=r"'a -> b' twice"):
    parse_routes(("a->b", "a -> b"), ("a", "b"))


def test_bands_are_named_by_sensor() -> None:
  assert parse_bands(()) == {}
  assert parse_bands(("a=B04, B03", " b = VV")) == {"a": ("B04", "B03"), "b": ("VV",)}


@pytest.mark.parametrize("entries", [("a",), ("a=",), ("=B04",), ("a=B04,",), ("a=V", "a=H")])
def test_bands_of_another_form_are_refused(entries: tuple[str, ...]) -> None:
  with pytest.raises(ConfigError, match=r"'data\.bands' has"):
    parse_bands(entries)
