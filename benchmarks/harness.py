"""What every benchmark shares: options, fair timing, a table to read and a line of JSON to keep."""

import argparse
import asyncio
import json
import math
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROUNDS = 5


@dataclass(frozen=True)
class Options:
    """How a benchmark was called."""

    quick: bool
    json: bool
    data: Path | None


def options(description: str, *, needs_data: bool = False) -> Options:
    """Read the command line; with `needs_data` a missing data folder is an error that names the remedy."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, for a first look")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--data", type=Path, default=os.environ.get("LLMCOST_DATA") or None, help="the data folder")
    given = parser.parse_args()
    data = Path(given.data) if given.data else None
    if needs_data and (data is None or not data.is_dir()):
        parser.error(f"needs a data folder, found {data}: pass --data DIR or set LLMCOST_DATA")
    return Options(given.quick, given.json, data)


def p50_us(call: Callable[[], Any], repeats: int) -> float:
    """Return the median microseconds of a call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


async def ap50_us(call: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Return the median microseconds of an awaited call."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter_ns()
        await call()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1e3


def interleaved(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Time several calls in turn over rounds and return the best median of each: they meet the same machine."""
    rounds = [{name: p50_us(call, repeats) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: min(result[name] for result in rounds) for name in calls}


def ainterleaved(calls: Mapping[str, Callable[[], Awaitable[Any]]], repeats: int) -> dict[str, float]:
    """Do as `interleaved` with awaited calls."""

    async def run() -> list[dict[str, float]]:
        return [{name: await ap50_us(call, repeats) for name, call in calls.items()} for _ in range(ROUNDS)]

    rounds = asyncio.run(run())
    return {name: min(result[name] for result in rounds) for name in calls}


def reference_us() -> float:
    """Time a fixed loop of plain Python, to compare machines and moments by."""

    def loop() -> int:
        total = 0
        for n in range(1_000):
            total += n * n
        return total

    return min(p50_us(loop, 200) for _ in range(ROUNDS))


def report(title: str, rows: Sequence[tuple[str, float, str]], given: Options) -> None:
    """Print the metrics (name, value, what was asked for) and, if wanted, the line of JSON."""
    width = max(len(name) for name, _, _ in rows)
    print(title)
    for name, value, wanted in rows:
        print(f"  {name:<{width}}  {value:>14,.3f}  {wanted}")
    if given.json:
        print(json.dumps({name: value for name, value, _ in rows if not math.isnan(value)}))
