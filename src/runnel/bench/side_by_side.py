"""What the benchmarks share: timing in turn, ratios, what the machine can do, and files of results.

A way to do something is a function that does it once and returns the seconds that count (what it prepares is left out).
All ways are run in turn in every round, so that whatever else the machine does falls on all alike; a ratio is the
median over the rounds of the ratios within a round.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from runnel import native

Way = Callable[[], float]
Seconds = dict[str, list[float]]
READ_BYTES = 1 << 28
SQUARE = 1024


def timed(work: Callable[[], Any], times: int = 1) -> Way:
    """The seconds of one of `times` runs."""

    def once() -> float:
        begun = time.perf_counter()
        for _ in range(times):
            work()
        return (time.perf_counter() - begun) / times

    return once


def in_turn(ways: Mapping[str, Way], repeats: int) -> Seconds:
    """The seconds of every way in every round, after a round that is not counted."""
    seconds: Seconds = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            taken = way()
            if repeat:
                seconds[name].append(taken)
        print(f"round {repeat} of {repeats}", file=sys.stderr, flush=True)
    return seconds


def ratio(seconds: Seconds, name: str, base: str) -> float:
    """How many times as long as `base`."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def limits() -> dict[str, Way]:
    """Ways that only read memory (READ_BYTES) and only multiply (a square of SQUARE): what the machine can do."""
    values = torch.ones(READ_BYTES // 4)
    squares = {kind: torch.ones(SQUARE, SQUARE, dtype=kind) for kind in (torch.float32, torch.bfloat16)}
    ways = {"read": timed(values.sum, 2)}
    for kind, square in squares.items():
        ways[f"multiply {kind}".replace("torch.", "")] = timed(partial(torch.matmul, square, square), 8)
    return ways


def share_of_reading(seconds: Seconds, name: str, nbytes: int) -> float:
    """Of the read bandwidth, when a way reads so many bytes."""
    return statistics.median(
        nbytes / own * read / READ_BYTES for own, read in zip(seconds[name], seconds["read"], strict=True)
    )


def share_of_multiplying(seconds: Seconds, name: str, products: float, kind: str) -> float:
    """Of the arithmetic, when a way does so many multiplications. kind: "float32" or "bfloat16"."""
    return statistics.median(
        products / own * full / SQUARE**3 for own, full in zip(seconds[name], seconds[f"multiply {kind}"], strict=True)
    )


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def circumstances() -> dict[str, Any]:
    """On what was measured, with which versions."""
    packages = {"torch": "torch", "transformers": "transformers", "llama_cpp": "llama-cpp-python", "mambapy": "mambapy"}
    sets = native.instruction_sets()
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "kernels": sets[0] if sets else "left out",
        "versions": {name: version(name) for module, name in packages.items() if installed(module)},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def show(report: dict[str, Any], path: Path | None) -> None:
    """Print a report, and keep it where a path is given."""
    text = json.dumps(report, indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
