"""Which architecture for text? Twenty-eight of equal parameters on the same tokens, and what each can do by length.

    python recipes/compare.py tinyshakespeare.txt --budget 3h      both texts: that file, and Python's own library
    python recipes/compare.py tinyshakespeare.txt --only library   one of the two

Runs `runnel compare` for each text; started again, it goes on where it was stopped. The reports go to
docs/results/compare-TEXT.html and the table of both to docs/results/compare.md.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runnel.data.text import standard_library
from runnel.storage import read_json

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MODELS = (
    "attention",
    "attention(window=64)",
    "linear_attention",
    "based",
    "rebased",
    "retnet",
    "gla",
    "hgrn2",
    "gsa",
    "deltanet",
    "gated_deltanet",
    "longhorn",
    "mlstm",
    "rwkv4",
    "rwkv6",
    "rwkv7",
    "mamba",
    "mamba2",
    "s4d",
    "lru",
    "hgrn",
    "rg_lru",
    "mingru",
    "minlstm",
    "gru",
    "lstm",
    "(mamba2*3, attention)",
    "(gated_deltanet*3, attention(window=64))",
)


def compare(data: str, folder: Path, models: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """Begin or go on; the report. CalledProcessError when the command fails, which has said why."""
    command = [sys.executable, "-m", "runnel", "compare", data, "--models", ",".join(models), "--equal", "params"]
    going_on = ["--resume"] if (folder / "plan.json").exists() else []
    subprocess.run([*command, *options, "--out", str(folder), *going_on], check=True, stdout=subprocess.DEVNULL)
    return read_json(folder / "report.json")


def page(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: a section for every text, the models by their loss among the baselines."""
    parts = [
        "# Architectures compared\n",
        "Made by `recipes/compare.py`, which runs `runnel compare --equal params`; [what is equal and what is "
        "told](../compare.md). Small models and short runs rank as small models and short runs do.",
    ]
    for name, report in found.items():
        parts.append(f"\n## {name}\n\n{terms(report)} [The whole report](compare-{name}.html).\n\n{table(report)}")
    return "\n".join(parts) + "\n"


def terms(report: dict[str, Any]) -> str:
    return (
        f"{len(report['models'])} models, {report['tokens']:,} tokens each in {report['steps']:,} steps, seeds: "
        f"{report['seeds']}. Capability: the mean over {len(report['tasks'])} tasks of how far from what is trivial "
        f"(0) to the optimum (1) a small model of that kind gets in {report['task_steps']:,} steps, at the length of "
        "training and at 16 times that."
    )


def table(report: dict[str, Any]) -> str:
    """Best first."""
    head = ["model", "bits per byte", "parameters", "state at 32k tokens", "trained tokens/s", "decoded tokens/s"]
    head += ["capability at 1x", "at 16x"]
    rows: list[tuple[float, list[str]]] = []
    for at, model in enumerate(report["models"]):
        bits = model["bits"]
        row = [f"`{model['pattern']}`", "diverged" if bits is None else f"**{bits:.3f}**", f"{model['parameters']:,}"]
        row += [f"{model['state_bytes']['32k'] / 1000:,.1f} kB", _speed(model["train_tokens_per_second"])]
        row += [_speed(model["decode_tokens_per_second"]), _capability(report, at, 0), _capability(report, at, -1)]
        rows.append((float("inf") if bits is None else bits, row))
    blank = [""] * (len(head) - 2)
    rows += [(bits, [f"*{name}*", f"*{bits:.3f}*", *blank]) for name, bits in report["baselines"].items()]
    lines = [head, ["---"] * len(head), *(row for _, row in sorted(rows, key=lambda row: row[0]))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _capability(report: dict[str, Any], model: int, multiple: int) -> str:
    cells = [task["scores"][model][multiple] for task in report["tasks"]]
    shares = [cell["share"] for cell in cells if cell is not None]
    return f"{sum(shares) / len(shares):.2f}" if shares else ""


def _speed(tokens: float | None) -> str:
    return "" if tokens is None else f"{tokens:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shakespeare", help="the file tinyshakespeare.txt")
    parser.add_argument(
        "--only", choices=["shakespeare", "library"], help="one of the texts; docs/ then stays as it is"
    )
    parser.add_argument("--budget", default="3h", help="time for each text")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs", help="where comparisons are kept")
    parser.add_argument("--models", help="patterns with commas between them, instead of all")
    options, rest = parser.parse_known_args()
    texts = {"shakespeare": options.shakespeare, "library": standard_library()}
    models = [options.models] if options.models else MODELS
    found = {}
    for name in [options.only] if options.only else texts:
        folder = options.folder / f"compare-{name}"
        found[name] = compare(texts[name], folder, models, ["--budget", options.budget, *rest])
    print(page(found))
    if options.only is None and options.models is None:
        for name in found:
            shutil.copyfile(options.folder / f"compare-{name}" / "report.html", RESULTS / f"compare-{name}.html")
        (RESULTS / "compare.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
