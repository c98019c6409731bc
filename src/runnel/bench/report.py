"""The results page from the reports of the other scripts.

python benchmarks/report.py results/*.json > docs/results/native.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Report = dict[str, Any]
HEAD = """# The native engine: measurements

Made by `benchmarks/report.py` from the reports of `benchmarks/decode.py`, `train.py` and `length.py`, each of which
says how it is run. All that stands in one table was timed in turn in one process; ratios are medians over the rounds.
"""


def main() -> None:
    reports = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    if not reports:
        raise SystemExit(__doc__)
    print(HEAD)
    order = ("decode", "train", "memory", "length")
    for report in sorted(reports, key=lambda report: order.index(report["what"])):
        print(page(report) + "\n")


def page(report: Report) -> str:
    """The tables of a report."""
    pages = {"decode": decode, "train": train, "memory": memory, "length": length}
    return "\n".join(pages[report["what"]](report))


def decode(report: Report) -> Iterable[str]:
    machine = report["machine"]
    yield f"## Decoding, {report['shape']}{' (a small stand-in)' if report['quick'] else ''}\n"
    yield circumstances(report)
    yield (
        f"Reading {machine['read_gigabytes_per_second']} GB/s; multiplying {machine['float32_gigaflops']:.0f} GFLOP/s "
        f"in float32, {machine['bfloat16_gigaflops']:.0f} in bfloat16.\n"
    )
    engines = {f"runnel {own['weights']}": own for own in report["runnel"]} | report["peers"]
    sizes = sorted({size for own in engines.values() for size in own.get("verify", {})}, key=int)
    prompts = sorted({key for own in engines.values() for key in own if key.startswith("prefill")}, key=len)
    yield from table(
        ["engine", "tokens/s", "share of reading", *(f"v({size})" for size in sizes), *(f"{p}, /s" for p in prompts)],
        [
            [
                name, own["decode"], own.get("share_of_read_bandwidth", ""),
                *(own.get("verify", {}).get(size, "") for size in sizes), *(own.get(prompt, "") for prompt in prompts),
            ]
            for name, own in engines.items()
        ],
    )  # fmt: skip
    rows = [
        [own["weights"], other, times] for own in report["runnel"] for other, times in own["times_faster_than"].items()
    ]
    if rows:
        yield ""
        yield from table(["ours", "against", "times faster"], rows)
    for other, difference in report["difference_of_logits"].items():
        yield f"\nLogits differ from those of {other} by {difference:.1g} of the largest."


def train(report: Report) -> Iterable[str]:
    yield "## A training step\n"
    yield circumstances(report)
    yield "Four layers of width 256, vocabulary 256, batch 1: forward, loss and backward.\n"
    for tokens, found in report["lengths"].items():
        keys = list(dict.fromkeys(key for row in found["steps"].values() for key in row))
        yield f"{tokens} tokens:\n"
        yield from table(
            ["model", *(key.replace("_", " ") for key in keys)],
            [[name, *(row.get(key, "") for key in keys)] for name, row in found["steps"].items()],
        )
        yield ""


def memory(report: Report) -> Iterable[str]:
    yield "## Memory of a training step\n"
    yield circumstances(report)
    lengths = list(report["peak_bytes"])
    names = list(report["peak_bytes"][lengths[0]])
    yield from table(
        ["model", *(f"{tokens} tokens, MiB" for tokens in lengths)],
        [[name, *(report["peak_bytes"][tokens][name] >> 20 for tokens in lengths)] for name in names],
    )


def length(report: Report) -> Iterable[str]:
    yield "## What a token costs after many tokens\n"
    yield circumstances(report)
    yield f"{report['layers']} layers of width {report['width']}, {report['weights']}; times relative to the first.\n"
    lengths = max((list(found["ratio_to_shortest"]) for found in report["mixers"]), key=len)
    yield from table(
        ["mixer", *lengths, "bytes of state"],
        [
            [found["mixer"], *(found["ratio_to_shortest"].get(tokens, "") for tokens in lengths),
             " to ".join(str(size) for size in dict.fromkeys(found["state_bytes"].values()))]
            for found in report["mixers"]
        ],
    )  # fmt: skip


def circumstances(report: Report) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"{report['processor']}, threads: {report['threads']}, kernels: {report['kernels']}; {versions}.\n"


def table(head: list[str], rows: list[list[Any]]) -> Iterable[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(str(cell) for cell in row)} |"


if __name__ == "__main__":
    main()
