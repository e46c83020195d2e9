"""Predicted times against sums by hand."""

from __future__ import annotations

import dataclasses

import pytest

from xjepa_jax.scaling.collectives import Collective
from xjepa_jax.scaling.roofline import HIDDEN, Prediction, predict
from xjepa_jax.scaling.topologies import Topology, topology


def links(machines: Topology, mesh: tuple[int, int, int], *found: Collective) -> Prediction:
  sizes = dict(zip(("replica", "fsdp", "tensor"), mesh, strict=True))
  return predict(machines, sizes, found, flops=1e12, recomputed=0, bytes_accessed=0)


def test_a_step_that_sends_nothing_takes_its_operations() -> None:
  machines = topology("h100-8,efficiency=0.5")
  found = predict(machines, {"replica": 1, "fsdp": 8, "tensor": 1}, [], 1e12, 5e11, 3.35e9)
  assert found.compute == pytest.approx(1.5e12 / (989.4e12 / 2))
  assert found.memory == pytest.approx(1e-3)
  assert found.seconds == found.least == found.most == found.compute
  assert found.mfu == pytest.approx(0.5 / 1.5) and found.bound == "compute"


def test_messages_of_a_machine_go_over_its_links_and_those_beyond_over_the_network_too() -> None:
  machines = topology("h100-64")
  near = links(machines, (8, 8, 1), Collective("all-gather", 8 * 10**9, 8, ("fsdp",)))
  assert (near.near, near.far) == (pytest.approx(7e9 / 450e9), 0)
  # Eight machines: each chip brings an eighth of what the others lack over the network.
  far = links(machines, (1, 64, 1), Collective("all-gather", 8 * 10**9, 64, ("fsdp",)))
  assert far.far == pytest.approx(7e9 / 8 / 50e9)
  assert far.near == pytest.approx(7e9 / 450e9)
  # Copies of a parameter's part lie in different machines: nothing of it is near.
  replicas = links(machines, (8, 8, 1), Collective("all-reduce", 10**9, 8, ("replica",)))
  assert replicas.near == 0 and replicas.far == pytest.approx(2 * 7 / 8 * 1e9 / 50e9)


def test_a_slice_that_is_not_closed_has_half_of_its_links() -> None:
  gather = Collective("all-gather", 16 * 10**8, 16, ("fsdp",))
  open_slice = links(topology("v5e-16"), (1, 16, 1), gather)
  assert open_slice.near == pytest.approx(15e8 / (200e9 / 2))
  closed = links(topology("v5p-128"), (1, 64, 1), dataclasses.replace(gather, members=64))
  assert closed.near == pytest.approx(16e8 * 63 / 64 / 600e9)
  # Beside a tensor axis, which has one of three dimensions, two are left.
  beside = links(topology("v5p-128"), (1, 16, 4), gather)
  assert beside.near == pytest.approx(15e8 / 400e9)


def test_slices_talk_over_the_network() -> None:
  found = links(topology("2xv5p-128"), (2, 64, 1), Collective("all-reduce", 10**9, 2, ("replica",)))
  assert found.near == 0 and found.far == pytest.approx(1e9 / 6.25e9)
  assert found.bound == "network"


def test_a_step_lies_between_all_and_nothing_hidden() -> None:
  found = Prediction(compute=3, memory=1, near=1, far=1, flops=6, peak=10)
  assert (found.least, found.most, found.seconds) == (3, 5, 5 - 2 * HIDDEN)
  assert found.mfu == pytest.approx(0.6 / found.seconds)
