"""What a state can and cannot do: associative recall and parity, the failing control beside the model that solves it.

    python recipes/expressivity.py                  all models, three seeds; under 25 minutes on one core
    python recipes/expressivity.py --only parity    one of the two tasks

A run that has ended is a line of runs/expressivity/runs.jsonl and is not repeated (remove its line to repeat it); an
interrupted one goes on. The page goes to docs/results/expressivity.md, with its figure beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

import runnel
from runnel import train
from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.storage import remembered
from runnel.types import IGNORE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "expressivity.md"
SEEDS = (6, 7, 8)
SCHEDULE = "wsd"
"""Chosen in try-outs: with a cosine one seed of six missed parity at 4x; why is not known (see the page)."""
MULTIPLES = (1, 2, 4)
"""Lengths that a model is scored at, over the length that it was trained at."""
BINS = 16
"""Pieces of the longest row, for the figure."""


@dataclass(frozen=True)
class Task:
    """A source, how it is trained on, and what counts as solved and as failed, written down before any recorded run.

    decisive: the multiple of the training length at which it is judged. solved: least accuracy there of each seed of a
    model that is to solve the task. failed: largest accuracy there of each seed of a control. chance: see `meaning`.
    """

    name: str
    source: str
    length: int
    batch_size: int
    d_model: int
    weight_decay: float
    decisive: int
    solved: float
    failed: float
    chance: float
    meaning: str


RECALL = Task(
    name="recall",
    source="recall:pairs=4,vocab=64",
    length=32,
    batch_size=64,
    d_model=32,
    weight_decay=0.1,
    decisive=1,
    solved=0.99,
    failed=0.5,
    chance=0.25,
    meaning="guessing among the row's four values",
)
PARITY = Task(
    name="parity",
    source="parity",
    length=40,
    batch_size=64,
    d_model=32,
    weight_decay=0.0,
    decisive=4,
    solved=0.99,
    failed=0.65,
    chance=0.5,
    meaning="guessing a bit; perfect up to the training length and guessing beyond it gives 0.625 at 4x",
)


@dataclass(frozen=True)
class Entry:
    """A model on a task. solves: what it is expected to do."""

    task: Task
    pattern: str
    solves: bool
    steps: int
    lr: float


ENTRIES = (
    Entry(RECALL, "attention(head_dim=16)*2", True, 1500, 5e-3),
    Entry(RECALL, "gated_deltanet(head_dim=32, conv=2)", True, 1500, 1e-2),
    Entry(RECALL, "mingru(expand=34, conv=2)", False, 1500, 1e-2),
    Entry(PARITY, "slstm(conv=1)", True, 600, 1e-2),
    Entry(PARITY, "gated_deltanet(beta_max=2.0, head_dim=16, conv=1)", True, 600, 2e-2),
    Entry(PARITY, "gated_deltanet(beta_max=1.0, head_dim=16, conv=1)", False, 600, 2e-2),
    Entry(PARITY, "mamba(conv=1)", False, 600, 1e-2),
    Entry(PARITY, "mamba*2", False, 600, 1e-2),
)


class Run(NamedTuple):
    """One entry with one seed: of the weights and of the data."""

    entry: Entry
    seed: int

    def key(self) -> dict[str, Any]:
        """What it was told, but for the expectations: a change of those does not change the run."""
        task, entry = self.entry.task, self.entry
        return {
            "source": task.source,
            "length": task.length,
            "batch_size": task.batch_size,
            "d_model": task.d_model,
            "weight_decay": task.weight_decay,
            "pattern": entry.pattern,
            "steps": entry.steps,
            "lr": entry.lr,
            "schedule": SCHEDULE,
            "seed": self.seed,
        }

    def name(self) -> str:
        digest = hashlib.sha256(json.dumps(self.key(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.entry.task.name}-{self.entry.pattern.partition('(')[0].rstrip('*2')}-{self.seed}-{digest}"


def perform(run: Run, folder: Path, on_step: Callable[[train.StepReport], None] | None = None) -> dict[str, Any]:
    """Train, then score at every multiple of the training length; a JSON-able record."""
    task, entry = run.entry.task, run.entry
    source = _open(task, task.length, run.seed)
    model = runnel.build(entry.pattern, vocab_size=source.vocab_size, d_model=task.d_model, seed=run.seed)
    config = train.TrainConfig(
        steps=entry.steps,
        lr=entry.lr,
        weight_decay=task.weight_decay,
        schedule=SCHEDULE,
        valid_every=None,
        seed=run.seed,
    )
    result = train.fit(model, source, folder / run.name(), config, on_step)
    right = {k: correct(model, _open(task, k * task.length, run.seed)) for k in MULTIPLES}
    return {
        **run.key(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": state_bytes(model, task.length),
        "accuracy": {str(k): _mean(found.flatten()) for k, found in right.items()},
        "along": [_mean(piece) for piece in right[MULTIPLES[-1]].flatten(1).chunk(BINS, dim=1)],
        "seconds": result.seconds,
    }


@torch.no_grad()
def correct(model: Model, source: Source) -> Tensor:
    """(rows, T): 1 where the likeliest next token is the target, 0 where it is not, NaN where there is no target."""
    model.eval()
    batches = []
    for batch in source.valid():
        logits, _ = model(batch.inputs)
        found = (logits.argmax(-1) == batch.targets).double()
        batches.append(found.masked_fill(batch.targets == IGNORE, torch.nan))
    return torch.cat(batches)


@torch.no_grad()
def state_bytes(model: Model, length: int) -> int:
    """Bytes that one row's state holds after `length` tokens; its count of tokens seen aside."""
    _, state = model(torch.zeros(1, length, dtype=torch.long))
    return state.nbytes - state.lengths.nbytes


def _open(task: Task, length: int, seed: int) -> Source:
    return open_source(task.source, Bytes(), length=length, batch_size=task.batch_size, seed=seed)


def _mean(found: Tensor) -> float | None:
    """None where there is no target, which JSON can say and NaN it cannot."""
    return None if bool(found.isnan().all()) else float(found.nanmean())


# ---- finished runs ------------------------------------------------------------------------------------------------


def perform_all(runs: Sequence[Run], folder: Path) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Every run with its record, made now or before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "runs.jsonl"
    for number, run in enumerate(runs, start=1):
        title = f"[{number}/{len(runs)}] {run.entry.task.name} {run.entry.pattern} seed {run.seed}"
        record = remembered(path, run.key(), partial(perform, run, folder, _progress(title)))
        scores = ", ".join(f"{k}x {score:.3f}" for k, score in record["accuracy"].items())
        print(f"{title}: {scores} ({record['seconds']:.0f} s)", flush=True)
        yield run, record


def _progress(title: str) -> Callable[[train.StepReport], None]:
    def report(step: train.StepReport) -> None:
        if step.step % 100 == 0:
            print(f"{title}: step {step.step} ({step.progress:.0%}), loss {step.loss:.3f} nats", flush=True)

    return report


# ---- the page -----------------------------------------------------------------------------------------------------

Results = list[tuple[Entry, list[dict[str, Any]]]]
"""Every entry with the records of its seeds."""


def met(entry: Entry, records: Sequence[dict[str, Any]]) -> bool:
    """Whether every seed did what was expected of the entry."""
    task = entry.task
    scores = [record["accuracy"][str(task.decisive)] for record in records]
    return min(scores) >= task.solved if entry.solves else max(scores) <= task.failed


def table(results: Results) -> str:
    """Markdown; seeds are parted by slashes."""
    head = ["model", "parameters", "state bytes", "train length"]
    head += [f"accuracy at {k}x" for k in MULTIPLES] + ["chance", "seconds", "expected", "met"]
    lines = [head, ["---"] * len(head)]
    for entry, records in results:
        first = records[0]
        lines.append(
            [
                f"`{entry.pattern}`",
                f"{first['parameters']:,}",
                f"{first['state_bytes']:,}",
                str(first["length"]),
                *[" / ".join(f"{r['accuracy'][str(k)]:.3f}" for r in records) for k in MULTIPLES],
                f"{entry.task.chance:g}",
                " / ".join(f"{r['seconds']:.0f}" for r in records),
                "solves" if entry.solves else "fails",
                "yes" if met(entry, records) else "**no**",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rule(task: Task) -> str:
    """The threshold, in words."""
    return (
        f"Decided before the recorded runs: at {task.decisive}x the training length a model *solves* the task when "
        f"each seed has an accuracy of at least {task.solved:g}, and a control *fails* when each seed has at most "
        f"{task.failed:g}. Chance is {task.chance:g}: {task.meaning}."
    )


def page(recall: Results, parity: Results) -> str:
    seeds = ", ".join(map(str, SEEDS))
    return f"""# Expressivity: what a state can and cannot do

Made by `python recipes/expressivity.py`. Seeds {seeds}, one beside the other, none left out; every seed is another
model and other data. The settings (sizes, steps, learning rates) were found with seeds 0 to 5, which are not in the
tables. Seconds are of training, on one thread of a shared two-core machine; AdamW, warm-up-stable-decay, batches of 64
fresh rows; scored on 512 held-out rows. State bytes are those of one row after the training length.

## Multi-query associative recall

Four key-value pairs, then the four keys in any order: the answer is the value that came with the key ("Zoology:
Measuring and Improving Recall in Efficient Language Models", 2023, 2312.04927). Keys and values are from 32 tokens
each. Attention looks the pair up in its memory of all tokens; the delta rule writes it into a matrix, under its key.
minGRU has a vector of as many bytes, and several times the parameters, but its gates see two neighbouring tokens and
nothing of what it holds. (A channel for every bit of every one of the 32 keys' values would fit into it: what is shown
is that training does not find this, not that it cannot be.) Attention has no convolution and so needs a layer more, to
bring a key and its value together.

{rule(RECALL)} Longer rows have more filler; they are shown, not judged.

{table(recall)}

minGRU is above chance. It answers with a value of the row 94 to 95 times in 100, and the sooner a pair came the better:
0.51 to 0.56 for the first pair, 0.23 to 0.28 for the last. No key is known and none unknown (0.25 to 0.55 for each of
the 32), so it has not given keys channels of their own. How it does this was not looked into, and longer training was
not tried: the claim is about equal state and equal steps.

## Parity

The running parity of random bits, every position scored ("Unlocking State-Tracking in Linear RNNs Through Negative
Eigenvalues", 2024, 2411.12537: trained on lengths up to 40, scored up to 256). Every position having a target, a row
of 40 trains all lengths from 1 to 40. The control of the delta rule is the same model with beta in (0, 1) instead of
(0, 2), so with eigenvalues in (0, 1) instead of (-1, 1). Convolutions are switched off (width 1), because they only
help to count short rows; `mamba*2` is mamba as it comes, with its convolution, in two layers.

{rule(PARITY)}

{table(parity)}

![Accuracy along a row of four times the training length](expressivity.png)

## What was tried

The thresholds were set after the first try-outs and not changed since. The models that solve their task were tuned more
than the controls: gated_deltanet on recall took about ten settings (pairs, vocabulary, width, heads, layers,
convolution, rate). The controls had their rate swept on seed 0 afterwards, all else as in the tables, and none came
near: minGRU on recall 0.264 / 0.338 / 0.375 at 1x (rates 0.003, 0.005, 0.02); on parity at 4x gated_deltanet with
beta_max 1 0.542 / 0.535 (0.003, 0.005), mamba 0.538 / 0.509 (0.003, 0.02), mamba*2 0.602 (0.003).

A first recorded round, seeds 3 to 5 with a cosine schedule, missed twice and was replaced by this one:

- Recall, `gated_deltanet(head_dim=16, conv=2)` of width 64: 1.000 / 0.999 / 0.898 after 1,000 steps; the last seed left
  the plateau late, and was at 0.971 after 1,500. Of width 32, with one head of 32, that seed was at 1.000 after 600.
  Why is not known; it is not the wider head alone (width 64 with heads of 32: still at chance after 500).
- Parity, `gated_deltanet(beta_max=2.0, head_dim=16, conv=1)`, 500 steps: 1.000 / 0.986 / 1.000 at 4x. With
  warm-up-stable-decay, all else the same, seeds 0 to 5 gave 1.000 at 4x. It is no rule: at 16x seed 2 was at 1.000 with
  the cosine and at 0.913 without. Gates short of their ends are not the cause. In seed 4, trained again (0.984 at 4x),
  the flip has beta 1.99999; setting it to 2 gives 0.985, taking the decay away 0.991, and taking away what a zero bit
  writes 0.591. The cause is open, and a claim beyond 4x is not made.
"""


def draw(parity: Results, path: Path) -> None:
    """Accuracy along the longest rows, a line for each seed."""
    colours = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#555555")  # Okabe and Ito's, for every kind of eye
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.add_subplot(xlabel="position in the row", ylabel="accuracy of the running parity")
    width = MULTIPLES[-1] * PARITY.length / BINS
    centres = [(i + 0.5) * width for i in range(BINS)]
    for (entry, records), colour in zip(parity, colours, strict=True):
        for i, record in enumerate(records):
            label = entry.pattern if i == 0 else None
            style = "-" if entry.solves else "--"
            axes.plot(centres, record["along"], color=colour, linestyle=style, alpha=0.8, label=label)
    axes.axvline(PARITY.length, color="#999999", linewidth=0.8)
    axes.annotate(" end of the training rows", (PARITY.length, 0.72), color="#555555", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(edgecolor="none", fontsize=8)
    figure.savefig(path, format="png", dpi=130)


def of_task(task: Task, results: Results) -> Results:
    return [(entry, records) for entry, records in results if entry.task is task]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["recall", "parity"], help="one task; the page is then left as it is")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "expressivity", help="where runs are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entries = [entry for entry in ENTRIES if options.only in (None, entry.task.name)]
    runs = [Run(entry, seed) for entry in entries for seed in SEEDS]
    records = [record for _, record in perform_all(runs, options.folder)]
    results = [(entry, records[i * len(SEEDS) : (i + 1) * len(SEEDS)]) for i, entry in enumerate(entries)]
    print(table(results))
    if options.only is None:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(page(of_task(RECALL, results), of_task(PARITY, results)), encoding="utf-8")
        draw(of_task(PARITY, results), PAGE.with_suffix(".png"))
        print(f"written to {PAGE}")
    return 0 if all(met(entry, found) for entry, found in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
