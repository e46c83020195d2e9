"""Results of the train step as a Markdown page; the JSON holds the same and every round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers.report import machine_lines

_MB, _GFLOP = 1e6, 1e9


def summarise(rounds: Sequence[Mapping[str, float]], flops: float, batch: int) -> dict[str, float]:
  """Medians over rounds; memory is the highest of any, the machine's rate the best of any.

  Args:
    rounds: what `step_measure` printed.
    flops: of a step, as ours needs them.
    batch: pairs of a step.
  """
  rates = [each["pairs"] / each["seconds"] for each in rounds]
  return {
    "median": statistics.median(rates),
    "min": min(rates),
    "max": max(rates),
    "cpu_seconds_per_step": statistics.median(
      batch * each["cpu_seconds"] / each["pairs"] for each in rounds
    ),
    "flops_per_second": statistics.median(rates) * flops / batch,
    "product_rate": statistics.median(each["product_rate"] for each in rounds),
    "share_of_product_rate": statistics.median(
      rate * flops / batch / each["product_rate"] for rate, each in zip(rates, rounds, strict=True)
    ),
    "resident": max(each["resident"] for each in rounds),
    "anonymous": max(each["anonymous"] for each in rounds),
  }


def markdown(results: Mapping[str, Any]) -> str:
  """The page of a run; `results` as `train_step.run` returns them."""
  lines = ["# Train step", "", *machine_lines(results["machine"]), "", _FIXED]
  for size in results["sizes"]:
    lines += ["", f"## {size['title']}", "", *_size(size)]
  if results["first"]:
    lines += ["", "## First step, and depth", "", *_first(results["first"])]
  if results["unroll"]:
    lines += ["", "## Scanned or unrolled", "", *_unroll(results["unroll"])]
  for size, parts in results["parts"].items():
    lines += ["", f"## Parts of ours, {size}", "", *_parts(parts, results)]
  return "\n".join(lines) + "\n"


_FIXED = (
  "float32, stored pairs in memory, four routes, latent term (L2), AdamW, EMA. Each round is a "
  "fresh process, competitors take turns. GFLOP/s counts the operations that ours needs "
  "(`training.plan.step_flops`), for both; the matrix rate is the fastest of eight 2048 x 2048 "
  "float32 products in the same process, after the steps."
)


def _size(size: Mapping[str, Any]) -> Iterator[str]:
  yield size["description"]
  yield ""
  yield (
    f"Loss of the same parameters and masks: ours {size['agreement']['ours']:.6f}, PyTorch "
    f"{size['agreement']['torch']:.6f} (2 layers)."
  )
  yield ""
  yield (
    "| | pairs/s, median | min | max | CPU s a step | GFLOP/s | matrix GFLOP/s | share "
    "| peak resident MB |"
  )
  yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
  for row in size["rows"]:
    found = row["summary"]
    yield (
      f"| {row['title']} | {found['median']:.2f} | {found['min']:.2f} | {found['max']:.2f} "
      f"| {found['cpu_seconds_per_step']:.2f} | {found['flops_per_second'] / _GFLOP:.0f} "
      f"| {found['product_rate'] / _GFLOP:.0f} | {found['share_of_product_rate']:.0%} "
      f"| {found['resident'] / _MB:,.0f} |"
    )
  ours, theirs = (size["rows"][number]["summary"] for number in (0, -1))
  times, memory = ours["median"] / theirs["median"], ours["resident"] / theirs["resident"]
  share = ours["share_of_product_rate"]
  yield ""
  yield (
    f"Ours does {times:.2f} times PyTorch's pairs/s (goal 1.5: {_met(times >= 1.5)}) at "
    f"{memory:.2f} times its peak memory (goal 1: {_met(memory <= 1)}), and {share:.0%} of the "
    f"matrix rate (goal 70 %: {_met(share >= 0.7)})."
  )


def _first(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  yield "| | trace s | compile s | both | temporary MB |"
  yield "|---|---:|---:|---:|---:|"
  for row in rows:
    yield (
      f"| {row['title']} | {row['trace']:.2f} | {row['compile']:.2f} "
      f"| {row['trace'] + row['compile']:.2f} | {row['temporary'] / _MB:,.0f} |"
    )
  once, twice, cached = (row["trace"] + row["compile"] for row in rows)
  yield ""
  yield (
    f"Goals: under 20 s: {_met(once < 20)}; twice the depth in at most 1.2 times as long "
    f"({twice / once:.2f}): {_met(twice <= 1.2 * once)}; from the cache under 5 s: "
    f"{_met(cached < 5)}."
  )


def _unroll(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  yield (
    "| `model.unroll` | pairs/s, median | min | max | CPU s a step | peak resident MB, compiled "
    "before | trace and compile s |"
  )
  yield "|---|---:|---:|---:|---:|---:|---:|"
  for row in rows:
    found, first = row["summary"], row["first"]
    # Not the highest: the first round compiles what the others find in the cache.
    resident = min(each["resident"] for each in row["rounds"])
    yield (
      f"| {row['unroll']} | {found['median']:.2f} | {found['min']:.2f} | {found['max']:.2f} "
      f"| {found['cpu_seconds_per_step']:.2f} | {resident / _MB:,.0f} "
      f"| {first['trace'] + first['compile']:.1f} |"
    )


def _parts(parts: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> Iterator[str]:
  del results
  total = sum(part["seconds"] for part in parts)
  yield "| | ms | share | CPU ms | GFLOP | GFLOP/s |"
  yield "|---|---:|---:|---:|---:|---:|"
  for part in parts:
    rate = f"{part['flops'] / part['seconds'] / _GFLOP:.0f}" if part["flops"] else ""
    work = f"{part['flops'] / _GFLOP:.1f}" if part["flops"] else ""
    yield (
      f"| {part['name']} | {1e3 * part['seconds']:,.0f} | {part['seconds'] / total:.0%} "
      f"| {1e3 * part['cpu_seconds']:,.0f} | {work} | {rate} |"
    )
  work = sum(part["flops"] for part in parts)
  yield (
    f"| sum | {1e3 * total:,.0f} | | {1e3 * sum(part['cpu_seconds'] for part in parts):,.0f} "
    f"| {work / _GFLOP:.1f} | {work / total / _GFLOP:.0f} |"
  )


def _met(met: bool) -> str:
  return "met" if met else "MISSED"
