"""The pictures of a report, as SVG text: curves, the trade of state for loss, and the matrix of tasks by length.

Colours are Okabe and Ito's, lines also differ in style and marker; the matrix is coloured by cividis, which grows in
lightness too, and every cell carries its number: all of it reads in grey and with any kind of eye.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX<>*hp"
GREY = "#555555"
METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
PANELS = 4
"""Tasks side by side in a row of the matrix."""


def curves(summary: dict[str, Any]) -> str:
    """Held-out bits against tokens; the mean over seeds, with the baselines as labelled lines."""
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    axes = figure.add_subplot(xlabel="tokens of training", ylabel="held-out bits per token")
    ended = [model for model in summary["models"] if model["bits"] is not None]
    for model, look in zip(sorted(ended, key=_bits), _looks(), strict=False):
        tokens, bits = _mean_curve(model["curves"])
        axes.plot(tokens, bits, markersize=4, linewidth=1.5, label=f"{model['bits']:.3f}  {model['pattern']}", **look)
    for name, bits in summary["baselines"].items():
        axes.axhline(bits, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(f"{name} {bits:.2f}", (0, bits), (3, 2), textcoords="offset points", color=GREY, fontsize=8)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8, edgecolor="none")
    return _svg(figure)


def trade(summary: dict[str, Any]) -> str:
    """Loss against the bytes of a state after 32k tokens, and against the speed of decoding."""
    ended = sorted((m for m in summary["models"] if m["bits"] is not None and "state_bytes" in m), key=_bits)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _scatter(left, ended, [model["state_bytes"]["32k"] for model in ended], "bytes of state after 32k tokens")
    _scatter(right, ended, [model["decode_tokens_per_second"] for model in ended], "tokens decoded in a second")
    left.set_ylabel("held-out bits per token")
    return _svg(figure)


def matrix(summary: dict[str, Any]) -> str:
    """A panel for every task: models down, multiples of the training length across."""
    found, rows = summary["tasks"], summary["rows"]
    if not found:
        return ""
    height = -(-len(found) // PANELS)
    figure = Figure(figsize=(9.5, height * (1.0 + 0.26 * len(rows))), layout="constrained")
    grid = figure.subplots(height, PANELS, squeeze=False, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place < len(found):
            _panel(axes, found[place], rows, summary["multiples"])
        else:
            axes.set_axis_off()
    return _svg(figure)


def _panel(axes: Axes, task: dict[str, Any], rows: Sequence[str], multiples: Sequence[int]) -> None:
    shares = [[float("nan") if cell is None else cell["share"] for cell in row] for row in task["scores"]]
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(task["scores"]):
        for x, cell in enumerate(row):
            dark = cell is None or cell["share"] < 0.55
            shown = "-" if cell is None else _number(cell["value"])
            axes.text(x, y, shown, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set_title(task["name"].replace("_", " ") + (" (nats)" if task["in_nats"] else ""), fontsize=9)
    axes.set_xticks(range(len(multiples)), [f"{k}x" for k in multiples], fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(row) for row in rows[:-1]] + ["control"], fontsize=8)
    axes.axhline(len(rows) - 1.5, color="white", linewidth=2)
    axes.set_facecolor("#bbbbbb")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _scatter(axes: Axes, models: Sequence[dict[str, Any]], values: Sequence[float], label: str) -> None:
    for model, value, look in zip(models, values, _looks(), strict=False):
        axes.plot([max(value, 1)], [model["bits"]], color=look["color"], marker=look["marker"], linestyle="none")
        point = (max(value, 1), model["bits"])
        axes.annotate(_short(model["pattern"]), point, (5, 3), textcoords="offset points", fontsize=7, color=GREY)
    if values and max(values) > 10 * max(min(values), 1):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)


def _looks() -> Any:
    """Colour, style and marker, a new triple for each of many lines."""
    looks = [{"color": c, "linestyle": s} for s in STYLES for c in COLOURS]
    return ({**look, "marker": marker} for look, marker in zip(cycle(looks), cycle(MARKERS), strict=False))


def _mean_curve(found: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    tokens = [point[0] for point in found[0]]
    return tokens, [sum(curve[i][1] for curve in found) / len(found) for i in range(len(tokens))]


def _bits(model: dict[str, Any]) -> float:
    return float(model["bits"])


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.0f}"


def _short(pattern: str, width: int = 22) -> str:
    return pattern if len(pattern) <= width else pattern[: width - 3] + "..."


def _svg(figure: Figure) -> str:
    """The drawing alone, its letters as letters. Nothing in it depends on the day."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "runnel", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return METADATA.sub("", text[text.index("<svg") :])
