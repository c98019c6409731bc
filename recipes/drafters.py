"""Trained drafters side by side: what each call of a frozen target yields on held-out text, for equal training tokens.

    python recipes/drafters.py                    all drafters, three seeds; about half an hour on one core
    python recipes/drafters.py --only hydra       those whose name begins so

The target is a byte model of Python's own library, trained first. A run that has ended is a line of
runs/drafters/runs.jsonl and is not repeated (remove its line to repeat it); an interrupted one goes on. The page goes
to docs/results/drafters.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import catalog, patterns, train
from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.data.text import standard_library
from runnel.drafters import fastdraft
from runnel.generation import generate
from runnel.model import Model
from runnel.storage import remembered
from runnel.trained import TrainedDrafter

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "drafters.md"
SEEDS = (0, 1, 2)
LONGEST = 4
"""Tokens that every drafter here drafts at most."""


@dataclass(frozen=True)
class Plan:
    """Everything but the drafters. prompts of `length` / 2 tokens, `written` tokens after each, greedily."""

    text: str = field(default_factory=standard_library)
    pattern: str = "mingru*2, attention(window=64)"
    d_model: int = 64
    length: int = 128
    batch_size: int = 8
    target_steps: int = 1500
    steps: int = 500
    lr: float = 3e-3
    prompts: int = 48
    written: int = 64


@dataclass(frozen=True)
class Entry:
    """A drafter and its objective; of several, each has an equal share of the steps."""

    drafter: str
    objective: str


ENTRIES = (
    Entry("medusa", "medusa"),
    Entry("medusa(layers=4)", "medusa"),
    Entry("hydra", "medusa"),
    Entry("hydra", "hydra"),
    Entry("hydra(layers=4, prefix='attention')", "hydra"),
    Entry("clover", "clover"),
    Entry("eagle(sampled=False)", "eagle"),
    Entry("eagle", "eagle"),
    Entry("nested(exits=[1, 2])", "nested"),
    Entry("falcon(block=1)", "falcon"),
    Entry("falcon(block=2)", "falcon"),
    Entry("hidden_transfer", "hidden_transfer"),
    Entry("fastdraft(layers=2)", "nested"),
    Entry("fastdraft(layers=2)", "nested, fastdraft"),
)


SLOW = ("hidden_transfer", "fastdraft(layers=2)")
"""Their objectives run the target many times a step, so they have one seed."""


def open_text(plan: Plan, seed: int) -> Source:
    return open_source(plan.text, Bytes(), plan.length, plan.batch_size, seed, valid_fraction=0.005)


def trained_target(plan: Plan, folder: Path) -> Model:
    """The target: made now or before."""
    model = runnel.build(plan.pattern, vocab_size=256, d_model=plan.d_model, seed=0)
    config = train.TrainConfig(
        steps=plan.target_steps, lr=1e-2, optimizer="muon", schedule="wsd", cooldown=0.4, valid_every=None
    )
    train.fit(model, open_text(plan, 0), folder / "target", config, _progress("target"))
    return model.eval()


def build(entry: Entry, target: Model, seed: int) -> TrainedDrafter:
    part = patterns.parse_part(entry.drafter, "drafters")
    page = catalog.page("drafters", part.name)
    config = patterns.Part(part.name, {**part.options, "target": target, "seed": seed}).config(page)
    return catalog.class_in(page, TrainedDrafter)(config)


def perform(entry: Entry, seed: int, plan: Plan, target: Model, folder: Path) -> dict[str, Any]:
    """Train a drafter and let it draft; a JSON-able record."""
    source = open_text(plan, seed)
    drafter = build(entry, target, seed)
    objectives, tokens, seconds = entry.objective.split(", "), 0, 0.0
    for stage, objective in enumerate(objectives):
        steps = plan.steps // len(objectives)
        config = train.TrainConfig(
            steps=steps, lr=plan.lr, objective=objective, valid_every=None, save_seconds=1e9, seed=seed
        )
        name = "".join(c if c.isalnum() else "-" for c in f"{entry.drafter}-{entry.objective}")
        run = folder / (f"{name}-{seed}" if stage == len(objectives) - 1 else f"{name}-{seed}-begun-{stage}")
        result = train.fit(drafter, source, run, config, _progress(f"{entry.drafter} {seed}"))
        tokens, seconds = tokens + result.tokens, seconds + result.seconds
    return {
        "parameters": sum(p.numel() for p in drafter.parameters()),
        "tokens": tokens,
        "seconds": seconds,
        **drafted(drafter.eval(), prompts_of(source, plan), plan.written),
    }


def prompts_of(source: Source, plan: Plan) -> list[list[int]]:
    """Held-out prompts, spread over the whole held-out text."""
    rows = torch.cat([batch.inputs for batch in source.valid() if batch.inputs.shape[1] == plan.length])
    chosen = torch.linspace(0, len(rows) - 1, min(plan.prompts, len(rows))).long()
    return rows[chosen, : plan.length // 2].tolist()


def drafted(drafter: TrainedDrafter, prompts: Sequence[Sequence[int]], written: int) -> dict[str, float]:
    """Tokens that every round of a row gives, those accepted and one; the rate at which a drafted token is accepted
    when those before it were; and the tokens per call that block efficiency foretells from that rate and the length
    of each draft, which is shorter at the end of a text.
    """
    done, rounds = [0] * len(prompts), []

    def note(row: int, new: list[int]) -> None:
        rounds.append((len(new) - 1, min(LONGEST, written - done[row] - 1)))
        done[row] += len(new)

    generate(drafter.target, prompts, written, "greedy", drafter, on_tokens=note)
    accepted, refused = sum(kept for kept, _ in rounds), sum(kept < room for kept, room in rounds)
    rate = accepted / max(1, accepted + refused)
    return {
        "tokens_per_call": sum(done) / len(rounds),
        "rate": rate,
        "foretold": sum(fastdraft.block_efficiency(rate, room) for _, room in rounds) / len(rounds),
    }


# ---- finished runs ------------------------------------------------------------------------------------------------


def perform_all(entries: Sequence[Entry], plan: Plan, folder: Path) -> Iterator[tuple[Entry, list[dict[str, Any]]]]:
    """Every entry with the records of its seeds, made now or before."""
    path, target = folder / "runs.jsonl", trained_target(plan, folder)
    fingerprint = target.fingerprint()
    for entry in entries:
        found = []
        for seed in SEEDS[:1] if entry.drafter in SLOW else SEEDS:
            key = {**asdict(plan), **asdict(entry), "seed": seed, "target": fingerprint}
            record = remembered(path, key, partial(perform, entry, seed, plan, target, folder))
            print(f"{entry.drafter} by {entry.objective}, seed {seed}: {record['tokens_per_call']:.3f}", flush=True)
            found.append(record)
        yield entry, found


def _progress(title: str) -> Any:
    def report(step: train.StepReport) -> None:
        if step.step % 250 == 0:
            print(f"{title}: step {step.step} ({step.progress:.0%}), loss {step.loss:.3f}", flush=True)

    return report


# ---- the page -----------------------------------------------------------------------------------------------------


def mean(found: Sequence[dict[str, Any]], key: str) -> float:
    return sum(record[key] for record in found) / len(found)


def page(results: Sequence[tuple[Entry, list[dict[str, Any]]]], plan: Plan) -> str:
    tokens = results[0][1][0]["tokens"]
    rows = [
        f"| `{entry.drafter}` | `{entry.objective}` | {found[0]['parameters']:,} | "
        + " / ".join(f"{record['tokens_per_call']:.2f}" for record in found)
        + f" | {mean(found, 'tokens_per_call'):.2f} | {mean(found, 'rate'):.3f} | {mean(found, 'foretold'):.2f} |"
        for entry, found in results
    ]
    return "\n".join(
        [
            "# Trained drafters",
            "",
            f"Made by `python recipes/drafters.py`. The target, `{plan.pattern}` with d_model {plan.d_model}, is a",
            f"byte model of Python's own library after {plan.target_steps:,} steps. Every drafter learned from",
            f"{tokens:,} tokens of the same text with the target frozen, and drafts a chain of at most four.",
            f"Tokens per call of the target, greedily, {plan.written} tokens after each of {plan.prompts} held-out",
            "prompts: 1.00 without a drafter, at most 5.00 with chains of four. Seeds (of weights and data) are parted",
            "by slashes. The rate is how often a drafted token is accepted when those before it were; from it alone,",
            "block efficiency (see `fastdraft`) foretells the last column.",
            f"One seed each, being slow to train: {', '.join(SLOW)}.",
            "",
            "| drafter | objective | parameters | tokens per call | mean | rate | foretold |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="drafters whose name begins so; no page is written")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "drafters")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = Plan()
    entries = [entry for entry in ENTRIES if entry.drafter.startswith(chosen.only)]
    results = list(perform_all(entries, plan, chosen.folder))
    if not chosen.only:
        PAGE.write_text(page(results, plan), encoding="utf-8")
        print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
