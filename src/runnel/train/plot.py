"""The loss curve of a run: bits against tokens, with baselines as labelled lines.

Colours are from the Okabe-Ito palette, which colour-blind readers can tell apart; lines also differ in style and carry
their name, so that the picture reads in black and white.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from runnel.storage import write_atomically
from runnel.train import metrics

BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#555555"
SMOOTHING = 0.02
"""Width of the running mean, as a share of the curve."""


def plot(folder: str | Path, path: str | Path, baselines: Mapping[str, float] | None = None, title: str = "") -> None:
    """Draw FOLDER/metrics.jsonl to a PNG at `path`.

    baselines: name -> bits per byte (bits per token where the run has no bytes). ValueError when no step is recorded.
    """
    lines = metrics.read(Path(folder))
    train = [line for line in lines if line["split"] == "train"]
    valid = [line for line in lines if line["split"] == "valid"]
    if not train:
        raise ValueError(f"{Path(folder) / metrics.FILE} must hold at least one training step; it holds none")
    unit = "bits_per_byte" if "bits_per_byte" in train[-1] else "bits_per_token"
    figure = Figure(figsize=(7.5, 4.3), layout="constrained")
    axes = figure.add_subplot(xlabel="tokens", ylabel=unit.replace("_", " "), title=title)
    _frame(axes, [line[unit] for line in lines], baselines or {})
    _draw_train(axes, train, unit)
    _draw_valid(axes, valid, unit)
    _draw_baselines(axes, baselines or {})
    axes.set_xlim(0, train[-1]["tokens"])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(edgecolor="none", facecolor="white", framealpha=1)
    write_atomically(Path(path), lambda target: figure.savefig(target, format="png", dpi=150))


def _draw_train(axes: Axes, train: Sequence[Mapping[str, Any]], unit: str) -> None:
    tokens, bits = [line["tokens"] for line in train], [line[unit] for line in train]
    axes.plot(tokens, bits, color=BLUE, alpha=0.25, linewidth=0.8)
    axes.plot(tokens, _running_mean(bits), color=BLUE, linewidth=1.8, label="train (running mean)")


def _draw_valid(axes: Axes, valid: Sequence[Mapping[str, Any]], unit: str) -> None:
    if not valid:
        return
    tokens, bits = [line["tokens"] for line in valid], [line[unit] for line in valid]
    axes.plot(
        tokens,
        bits,
        color=VERMILION,
        linewidth=1.5,
        marker="o",
        markersize=4,
        clip_on=False,
        label=f"valid (last {bits[-1]:.2f})",
    )


def _draw_baselines(axes: Axes, baselines: Mapping[str, float]) -> None:
    """Dashed lines, named at the right edge; names of close lines are pushed apart."""
    low, high = axes.get_ylim()
    gap, lowest = 0.045 * (high - low), -math.inf
    for name, bits in sorted(baselines.items(), key=lambda item: item[1]):
        lowest = max(bits, lowest + gap)
        axes.axhline(bits, color=GREY, linewidth=1.0, linestyle="--")
        axes.annotate(
            f"{name} {bits:.2f}",
            xy=(1, bits),
            xytext=(1.01, lowest),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            va="center",
            color=GREY,
            annotation_clip=False,
        )


def _frame(axes: Axes, curves: Sequence[float], baselines: Mapping[str, float]) -> None:
    """Limits that give the room to the part worth reading: the first, steep fall may leave the picture."""
    settled = sorted(curves)[int(0.98 * (len(curves) - 1))]
    values = [settled, min(curves), *baselines.values()]
    margin = 0.06 * (max(values) - min(values)) or 0.1
    axes.set_ylim(min(values) - margin, max(values) + margin)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean whose width is a fixed share of the curve, without the bias of its start."""
    keep = 1 - 1 / max(1.0, SMOOTHING * len(values))
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(mean / weight)
    return means
