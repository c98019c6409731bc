"""Is any mixer slow without need? Every page's training step beside attention's, and its decoding beside mamba2's.

    python benchmarks/pages.py --json results/pages.json --page docs/results/pages.md
    python benchmarks/pages.py --mixers gla,mesa --repeats 3
    python benchmarks/pages.py --quick                              # three mixers, 64 tokens: does it run?

Four layers over a vocabulary of 256, batch 1, each at the width whose parameters are nearest to those of attention at
256. A ratio is the median over the rounds of ratios within a round, in which the page and its base run in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

import runnel
from runnel import catalog
from runnel.bench.side_by_side import circumstances, in_turn, ratio, show, timed
from runnel.bench.steps import Step, step_of
from runnel.compare.entrants import Entrant, parse_entrants
from runnel.model import Model

VOCAB, WIDTH, LAYERS = 256, 256, 4
TRAIN_BASE, DECODE_BASE = "attention", "mamba2"
TRAIN_BOUND, DECODE_BOUND = 2.0, 1.5
LENGTH, STEPS = 512, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="all by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="three mixers, 64 tokens, two rounds")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--page", type=Path, help="write the tables here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    names = given.mixers.split(",") if given.mixers else ["gla", "gru", "mesa"] if given.quick else _alone()
    length, repeats = (64, 2) if given.quick else (LENGTH, given.repeats)
    report: dict[str, Any] = {"what": "pages", **circumstances(), "length": length, "repeats": repeats}
    bases = {base: _entrant(base).build(VOCAB) for base in (TRAIN_BASE, DECODE_BASE)}
    report["pages"] = {}
    for name in names:
        print(name, file=sys.stderr, flush=True)
        report["pages"][name] = _measured(_entrant(name), bases, length, repeats)
    show(report, given.json)
    if given.page is not None:
        given.page.write_text(page(report))


def _alone() -> list[str]:
    """Mixers that make a model by themselves, without options and without links to others."""
    found = []
    for name in catalog.names("mixers"):
        try:
            runnel.build(name, vocab_size=VOCAB, d_model=64)
        except ValueError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
        else:
            found.append(name)
    return found


def _entrant(name: str) -> Entrant:
    """The page at attention's number of parameters; as wide as attention where no width comes near."""
    try:
        return parse_entrants(f"{TRAIN_BASE},{name}", WIDTH, LAYERS, "params", VOCAB)[-1]
    except ValueError:
        return Entrant(name, LAYERS, WIDTH)


def _measured(entrant: Entrant, bases: dict[str, Model], length: int, repeats: int) -> dict[str, Any]:
    model = entrant.build(VOCAB)
    training = in_turn({"base": timed(_step(bases[TRAIN_BASE], length)), "page": timed(_step(model, length))}, repeats)
    packed = runnel.pack(model, "f32")
    decoding = in_turn(
        {"base": timed(_tokens(runnel.pack(bases[DECODE_BASE], "f32"))), "page": timed(_tokens(packed))}, repeats
    )
    return {
        "width": entrant.d_model,
        "parameters": sum(p.numel() for p in model.parameters()),
        "native": not packed.fallbacks,
        "train": round(ratio(training, "page", "base"), 2),
        "decode": round(ratio(decoding, "page", "base"), 2),
        "train_tokens_per_second": round(length / median(training["page"])),
        "decode_tokens_per_second": round(STEPS / median(decoding["page"])),
    }


def _step(model: Model, length: int) -> Step:
    return step_of(model, lambda tokens: model(tokens)[0], length)


def _tokens(packed: Any) -> Step:
    """STEPS single tokens after a short text."""
    token = torch.zeros(1, 1, dtype=torch.long)
    _, begun = packed(torch.zeros(1, 8, dtype=torch.long))

    def steps() -> None:
        state = begun
        for _ in range(STEPS):
            _, state = packed(token, state)

    return steps


def page(report: dict[str, Any]) -> str:
    found = report["pages"]
    slow = {
        "trains": [name for name, line in found.items() if line["train"] > TRAIN_BOUND],
        "decodes": [name for name, line in found.items() if line["decode"] > DECODE_BOUND],
    }
    lines = [
        "# How fast every mixer is\n",
        f"Made by `benchmarks/pages.py`: four layers, vocabulary 256, batch 1, {report['threads']} thread, every page "
        f"at the width\nwhose parameters are nearest to those of attention at {WIDTH}. train: the time of a step over "
        f"{report['length']} tokens over\nattention's; decode: the time of a token by the packed model (f32) over "
        f"mamba2's. Medians of {report['repeats']} rounds of ratios within a\nround; {report['processor']}, kernels: "
        f"{report['kernels']}.\n",
        f"- Above {TRAIN_BOUND:g} times attention in training: {_listed(slow['trains'])}.",
        f"- Above {DECODE_BOUND:g} times mamba2 in decoding: {_listed(slow['decodes'])}.\n",
        "| mixer | width | parameters | native | train | tokens/s | decode | tokens/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, line in sorted(found.items(), key=lambda item: item[1]["train"]):
        lines.append(
            f"| `{name}` | {line['width']} | {line['parameters']:,} | {'yes' if line['native'] else 'no'} "
            f"| {line['train']:.2f} | {line['train_tokens_per_second']:,} "
            f"| {line['decode']:.2f} | {line['decode_tokens_per_second']:,} |"
        )
    return "\n".join(lines) + "\n"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


if __name__ == "__main__":
    main()
