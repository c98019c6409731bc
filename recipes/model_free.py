"""Drafters without a model side by side: what each call of a target yields on held-out text, for three targets.

    python recipes/model_free.py                  all drafters, three seeds; some ten minutes on one core
    python recipes/model_free.py --only corpus    those whose name begins so

The targets are byte models of Python's own library, trained for less than a minute each, of other weights and other
data for every seed. A run that has ended is a line of runs/model_free/runs.jsonl and is not repeated (remove its line
to repeat it). The page goes to docs/results/model_free.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import train
from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.data.text import standard_library
from runnel.drafters import adaptive, corpus, jacobi, lookahead, prompt_lookup, suffix, token_recycling
from runnel.generation import generate
from runnel.model import Model
from runnel.storage import remembered

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "model_free.md"
SEEDS = (0, 1, 2)
WAYS = {"greedy": {"decoder": "greedy"}, "sampled": {"decoder": "sample", "temperature": 0.8}}
"""How the targets write, with `match` for acceptance."""


@dataclass(frozen=True)
class Plan:
    """Everything but the drafters. prompts of `length` tokens, `written` tokens after each.

    corpus: tokens of the training text that the static automaton reads.
    """

    text: str = field(default_factory=standard_library)
    pattern: str = "mingru*2, attention(window=64)"
    d_model: int = 64
    length: int = 128
    batch_size: int = 8
    steps: int = 1000
    prompts: int = 12
    written: int = 256
    corpus: int = 200_000


Train = Callable[[], list[int]]
"""Gives the training text, for the drafter that reads one."""

DRAFTERS: dict[str, Callable[[Train], Any]] = {
    "prompt_lookup": lambda text: prompt_lookup.Config(max_draft=15),
    "suffix": lambda text: suffix.Config(max_draft=15),
    "suffix: matches of 2 tokens too": lambda text: suffix.Config(min_match=2, max_draft=15),
    "token_recycling": lambda text: token_recycling.Config(),
    "adaptive": lambda text: adaptive.Config(),
    "lookahead": lambda text: lookahead.Config(),
    "jacobi": lambda text: jacobi.Config(),
    "corpus: text and recycling": lambda text: corpus.Config(max_draft=15),
    "corpus: training text, text and recycling": lambda text: corpus.Config([text()], max_draft=15),
}
"""All may draft some 15 tokens a call."""


def open_text(plan: Plan, seed: int) -> Source:
    return open_source(plan.text, Bytes(), plan.length, plan.batch_size, seed, valid_fraction=0.005)


def trained_target(plan: Plan, seed: int, folder: Path) -> Model:
    """The target: made now or before."""
    model = runnel.build(plan.pattern, vocab_size=256, d_model=plan.d_model, seed=seed)
    config = train.TrainConfig(
        steps=plan.steps, lr=1e-2, optimizer="muon", schedule="wsd", cooldown=0.4, valid_every=None, seed=seed
    )
    train.fit(model, open_text(plan, seed), folder / f"target-{seed}", config)
    return model.eval()


def prompts_of(source: Source, plan: Plan) -> list[list[int]]:
    """Held-out prompts, spread over the whole held-out text."""
    rows = torch.cat([batch.inputs for batch in source.valid() if batch.inputs.shape[1] == plan.length])
    return rows[torch.linspace(0, len(rows) - 1, min(plan.prompts, len(rows))).long()].tolist()


def perform(name: str, way: str, seed: int, plan: Plan, target: Model) -> dict[str, float]:
    """Let a drafter draft. tokens_per_call: what a round gives a row, those accepted and one; drafted_per_call."""
    source = open_text(plan, seed)
    drafter = DRAFTERS[name](lambda: list(source.sample(plan.corpus)[0]))
    prompts = prompts_of(source, plan)
    options: dict[str, Any] = {"max_new_tokens": plan.written, "seed": 1000 * seed, **WAYS[way]}
    found = generate(target, prompts, drafter=drafter, **options)
    tokens = sum(map(len, found.tokens))
    calls = tokens - found.stats["accepted"]
    return {"tokens_per_call": tokens / calls, "drafted_per_call": found.stats["drafted"] / calls}


def perform_all(names: Sequence[str], plan: Plan, folder: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The records of all seeds for each drafter and way, made now or before."""
    path, results = folder / "runs.jsonl", dict[tuple[str, str], list[dict[str, Any]]]()
    for seed in SEEDS:
        target = trained_target(plan, seed, folder)
        for name in names:
            for way in WAYS:
                key = {**asdict(plan), "drafter": name, "way": way, "seed": seed}
                record = remembered(path, key, partial(perform, name, way, seed, plan, target))
                print(f"{name}, {way}, seed {seed}: {record['tokens_per_call']:.3f}", flush=True)
                results.setdefault((name, way), []).append(record)
    return results


def table(results: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Markdown: tokens per call of every seed and their mean, for both ways; drafted tokens per call of the sampled."""
    rows = ["| drafter | greedy | mean | sampled | mean | drafted per call |", "|---|---|---|---|---|---|"]
    for name in dict.fromkeys(name for name, _ in results):
        cells = [f"`{name.partition(':')[0]}`{name.partition(':')[1]}{name.partition(':')[2]}"]
        for way in WAYS:
            found = [record["tokens_per_call"] for record in results[name, way]]
            cells += [" / ".join(f"{value:.2f}" for value in found), f"{sum(found) / len(found):.2f}"]
        drafted = [record["drafted_per_call"] for record in results[name, "sampled"]]
        rows.append(f"| {' | '.join([*cells, f'{sum(drafted) / len(drafted):.1f}'])} |")
    return "\n".join(rows)


def page(results: dict[tuple[str, str], list[dict[str, Any]]], plan: Plan) -> str:
    return "\n".join(
        [
            "# Drafters without a model",
            "",
            f"Made by `python recipes/model_free.py`. The targets, `{plan.pattern}` with d_model",
            f"{plan.d_model}, are byte models of Python's own library after {plan.steps:,} steps, one a seed.",
            f"Tokens per call of the target for {plan.written} tokens after each of {plan.prompts} held-out prompts of",
            f"{plan.length}, written greedily and at temperature 0.8: 1.00 without a drafter. Seeds (of weights, data",
            f"and noise) are parted by slashes. The training text of the last row is its last {plan.corpus:,} bytes.",
            "",
            table(results),
            "",
            "Greedy text of such small models runs into loops, which any copy follows: the sampled columns tell more.",
            "The suffix automaton alone is below prompt lookup, mostly because it asks for matches of 3 tokens, not 2.",
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="drafters whose name begins so; no page is written")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "model_free")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = [name for name in DRAFTERS if name.startswith(chosen.only)]
    results = perform_all(names, Plan(), chosen.folder)
    print(table(results))
    if not chosen.only:
        PAGE.write_text(page(results, Plan()), encoding="utf-8")


if __name__ == "__main__":
    main()
