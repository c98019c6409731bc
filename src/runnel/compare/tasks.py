"""The tasks of the capability matrix: a source, the length of its training rows, and how an answer is scored.

A model is trained at one length and scored on held-out rows 1, 2, 4 and 16 times as long. The last row of the matrix is
a control that must fail: attention with a window of one token, which has no past at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from runnel.codecs.bytes import Bytes
from runnel.data import Source, open_source
from runnel.model import Model
from runnel.objectives import next_token
from runnel.types import IGNORE

MULTIPLES = (1, 2, 4, 16)
CONTROL = "attention(window=1)"
TRAIN_ROWS, SCORED_TOKENS = 32, 4096
"""Rows of a training batch, and the least number of tokens that a score rests on."""


@dataclass(frozen=True)
class Task:
    """spec, length: of the source. in_nats: scored by nats above the known optimum, not by accuracy."""

    name: str
    spec: str
    length: int = 64
    in_nats: bool = False

    def open(self, multiple: int, rows: int, seed: int) -> Source:
        return open_source(self.spec, Bytes(), self.length * multiple, rows, seed)


TASKS = (
    Task("recall", "recall:pairs=8,vocab=64"),
    Task("selective_copy", "selective_copy:items=8,symbols=16"),
    Task("copying", "copying:symbols=16", length=32),
    Task("delayed_copy", "delayed_copy:items=8,symbols=8"),
    Task("needle", "needle:needles=4,keys=16,values=16,filler=16"),
    Task("key_overwriting", "key_overwriting:keys=4,values=16"),
    Task("parity", "parity", length=40),
    Task("modular_counting", "modular_counting:modulus=3", length=40),
    Task("regular_language", "regular_language:states=5,symbols=3", length=40),
    Task("dyck", "dyck:kinds=4,depth=8"),
    Task("sorting", "sorting:symbols=32", length=32),
    Task("in_context_regression", "in_context_regression:dims=1,noise=0.1", in_nats=True),
    Task("piecewise_stationary", "piecewise_stationary:symbols=4,hazard=0.05", in_nats=True),
)


def find(names: str) -> list[Task]:
    """Tasks by their names with commas between them; "all" and "none" are understood."""
    known = {task.name: task for task in TASKS}
    chosen = {"all": list(known), "none": []}.get(names, names.split(","))
    for name in chosen:
        if name not in known:
            raise ValueError(f"there is no task {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in chosen]


def domain(source: Source) -> dict[str, int]:
    """What a model must be built for to read the source."""
    if source.vocab_size:
        return {"vocab_size": source.vocab_size}
    return {"value_dim": source.batch(0).inputs.shape[-1]}


def score_all(model: Model, task: Task, seed: int) -> dict[str, dict[str, float]]:
    """For every multiple of the training length: nats, accuracy, and what is trivial and best there."""
    return {str(multiple): _score(model, task, multiple, seed) for multiple in MULTIPLES}


@torch.no_grad()
def _score(model: Model, task: Task, multiple: int, seed: int) -> dict[str, float]:
    model.eval()
    rows = max(4, SCORED_TOKENS // (task.length * multiple))
    source = task.open(multiple, rows, seed)
    nats, right, targets = 0.0, 0.0, 0
    for batch in islice(source.valid(), 2):
        nats += float(next_token.loss(model, batch)) * batch.n_targets
        targets += batch.n_targets
        if source.vocab_size:
            guesses = model(batch.inputs)[0].argmax(-1)
            right += float(((guesses == batch.targets) & (batch.targets != IGNORE)).sum())
    best, chance = source.facts["optimal_nats"], source.facts["chance_nats"]
    found = {"nats": nats / targets, "optimal_nats": best, "chance_nats": chance, "targets": float(targets)}
    return found if task.in_nats else {**found, "accuracy": right / targets}


def shown(task: Task, score: dict[str, float]) -> float:
    """The number of a cell: accuracy, or nats above the optimum."""
    return score["nats"] - score["optimal_nats"] if task.in_nats else score["accuracy"]


def share(task: Task, value: float, score: dict[str, float], control: float | None) -> float:
    """How far a cell is from what is trivial (0) to the optimum (1). Trivial: the better of chance and the control."""
    best = 0.0 if task.in_nats else 1.0
    chance = score["chance_nats"] - score["optimal_nats"] if task.in_nats else math.exp(-score["chance_nats"])
    trivial = [chance] if control is None or not math.isfinite(control) else [chance, control]
    floor = min(trivial, key=lambda found: abs(found - best))
    found = 1.0 if floor == best else (value - floor) / (best - floor)
    return min(1.0, max(0.0, found)) if math.isfinite(found) else 0.0


def describe(task: Task) -> dict[str, Any]:
    return {"name": task.name, "source": task.spec, "length": task.length, "in_nats": task.in_nats}
