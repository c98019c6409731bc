"""The page of a comparison: one HTML file with nothing outside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-size: 13px; width: 100%; }
th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; font-weight: 600; vertical-align: bottom; }
tr.baseline td { color: #555; font-style: italic; }
td { white-space: nowrap; } td:first-child { white-space: normal; }
figure { margin: 1rem 0; } svg { width: 100%; height: auto; }
p.note { color: #555; font-size: 13px; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } figure, table { break-inside: avoid; } }
"""


def render(summary: dict[str, Any], pictures: dict[str, str]) -> str:
    """summary: of `runnel.compare.summary`. pictures: SVG texts by name."""
    parts = [
        f"<h1>{len(summary['models'])} models on {escape(summary['data'])}</h1>",
        f"<p>{_terms(summary)}</p>",
        "<h2>Loss on held-out data</h2>",
        _figure(pictures["curves"], "Every point is a validation; means over the seeds."),
        _losses(summary),
        "<h2>What they cost</h2>",
        _costs(summary),
        "<p class=note>Speeds are medians on one thread of this machine: training while others trained beside it, "
        "a prompt of 1,024 tokens, and tokens one by one after it. FLOPs: 2 for every weight and 2 for every number of "
        "the state after 1,024 tokens. Bytes of state after 32k and 1M tokens follow from the growth up to 1,024.</p>",
        _figure(pictures["trade"], "Lower is better; to the left is a smaller state, to the right a faster decoder."),
        *_capabilities(summary, pictures["matrix"]),
        "<h2>Learning rates that were tried</h2>",
        _rates(summary),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Runnel: a comparison</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _terms(summary: dict[str, Any]) -> str:
    equal = {
        "none": "of one width",
        "params": "of equal parameters",
        "state": "of equal state after 32k tokens",
        "flops": "of equal operations for a token",
    }[summary["equal"]]
    tries = f"the best of {_count(len(summary['rates']), 'rate')} tried for {summary['swept_steps']:,} steps"
    return (
        f"Models {equal}, each trained on the same {summary['tokens']:,} tokens in {summary['steps']:,} steps of rows "
        f"of {summary['length']}, with {_count(summary['seeds'], 'seed')} and {tries}. "
        f"The budget was {summary['budget_seconds']:.0f} seconds for all."
    )


def _losses(summary: dict[str, Any]) -> str:
    rows: list[tuple[float, list[str], str]] = []
    for model in summary["models"]:
        seeds = " / ".join(f"{bits:.3f}" for bits in model["bits_by_seed"])
        shown = "diverged" if model["bits"] is None else f"{model['bits']:.3f}"
        rank = float("inf") if model["bits"] is None else model["bits"]
        rows.append((rank, [model["pattern"], shown, seeds, f"{model['rate']:g}"], ""))
    rows += [(bits, [name, f"{bits:.3f}", "", ""], "baseline") for name, bits in summary["baselines"].items()]
    rows.sort(key=lambda row: row[0])
    return _table(["model", "bits per token", "by seed", "rate"], [row[1] for row in rows], [row[2] for row in rows])


def _costs(summary: dict[str, Any]) -> str:
    head = ["model", "width", "layers", "parameters", "MFLOPs a token", "state 1k", "32k", "1M"]
    head += ["trained tokens/s", "prefill tokens/s", "decoded tokens/s"]
    if summary["equal"] != "none":
        head.append("size / first")
    rows = []
    for model in summary["models"]:
        if "parameters" not in model:
            continue
        row = [model["pattern"], str(model["d_model"]), str(model["n_layers"]), f"{model['parameters']:,}"]
        row += [f"{model['flops_per_token'] / 1e6:.2f}", *(_bytes(size) for size in model["state_bytes"].values())]
        trained = model["train_tokens_per_second"]
        row += ["" if trained is None else f"{trained:,.0f}"]
        row += [f"{model[f'{what}_tokens_per_second']:,.0f}" for what in ("prefill", "decode")]
        rows.append(row + ([f"{model['size']:.2f}"] if summary["equal"] != "none" else []))
    return _table(head, rows)


def _capabilities(summary: dict[str, Any], picture: str) -> Sequence[str]:
    if not picture:
        return []
    size = f"width {summary['task_width']} and at least {_count(summary['task_layers'], 'layer')}"
    note = (
        "Accuracy on held-out rows as long as those of training, and 2, 4 and 16 times as long; in panels of nats "
        "the nats above the known optimum. Colour: from what is trivial, the better of chance and the control, (dark) "
        f"to the optimum (light). Every cell is a model of {size}, trained for {summary['task_steps']:,} steps, its "
        "rate that on the text. The control sees one token and must fail."
    )
    return ["<h2>What they can do, by length</h2>", _figure(picture, note), _sources(summary)]


def _sources(summary: dict[str, Any]) -> str:
    rows = []
    for task in summary["tasks"]:
        first = next((cell for row in task["scores"] for cell in row if cell is not None), None)
        known = ["", ""] if first is None else [f"{first['optimal_nats']:.3f}", f"{first['chance_nats']:.3f}"]
        rows.append([task["name"], task["source"], str(task["length"]), *known])
    return _table(["task", "source", "training length", "optimum, nats", "chance, nats"], rows)


def _rates(summary: dict[str, Any]) -> str:
    head = ["model", *(f"{rate:g}" for rate in summary["rates"])]
    rows = []
    for model in summary["models"]:
        found = [model["nats_by_rate"].get(str(rate)) for rate in summary["rates"]]
        rows.append([model["pattern"], *("" if nats is None else f"{nats:.3f}" for nats in found)])
    return (
        _table(head, rows)
        + "<p class=note>Held-out nats after the tried steps; empty where it diverged or was not tried.</p>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for at, row in enumerate(rows):
        kind = f' class="{classes[at]}"' if classes and classes[at] else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _figure(picture: str, note: str) -> str:
    return f"<figure>{picture}<figcaption><p class=note>{escape(note)}</p></figcaption></figure>"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
