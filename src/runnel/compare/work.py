"""One job, in a process of its own: try a learning rate, train on the text, train and score on a task, time a model."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from runnel import train
from runnel.compare import cost, tasks
from runnel.compare.plan import Plan
from runnel.data import Source
from runnel.model import Model
from runnel.train import metrics
from runnel.types import Batch

KINDS = ("rate", "text", "task", "speed")
VALIDATIONS = 8
"""Points of a curve of held-out loss."""
HELD_OUT = 32
"""Held-out batches that a validation reads at most."""
LENGTHS = {"1k": 1024, "32k": 32_768, "1M": 1_048_576}
"""Where the bytes of a state are told."""
PREFILL, DECODED = 1024, 64


@dataclass(frozen=True)
class Job:
    """kind: of KINDS. model: which of the plan's. rate: learning rate; task: by name, for the kinds that have one."""

    kind: str
    model: int
    seed: int = 0
    rate: float | None = None
    task: str | None = None

    def key(self) -> dict[str, Any]:
        return asdict(self)

    def name(self) -> str:
        parts = (self.kind, self.model, self.task, self.seed, self.rate)
        return "-".join(str(part) for part in parts if part is not None)


class Excerpt:
    """A source with a bounded held-out part."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.vocab_size, self.facts = source.vocab_size, source.facts
        self.codec = getattr(source, "codec", None)

    def batch(self, index: int) -> Batch:
        return self.source.batch(index)

    def valid(self) -> Iterator[Batch]:
        return islice(self.source.valid(), HELD_OUT)


def perform(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    """A JSON-able record. A run that diverged is a result too: {"diverged": why}."""
    torch.set_num_threads(1)
    runs = folder / "runs" / job.name()
    try:
        found = {"rate": _try_rate, "text": _train_text, "task": _train_task, "speed": _speed}[job.kind](
            plan, job, runs
        )
    except train.Diverged as error:
        found = {"diverged": str(error)}
    if job.kind != "text":
        shutil.rmtree(runs, ignore_errors=True)
    return {**job.key(), **found}


def _try_rate(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    source, model = _text(plan, job)
    result = train.fit(model, source, folder, _config(job, plan.swept_steps, None))
    return {"nats": result.valid_loss}


def _train_text(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    source, model = _text(plan, job)
    result = train.fit(model, source, folder, _config(job, plan.steps, max(1, plan.steps // VALIDATIONS)))
    lines = metrics.read(folder)
    steps = [line["tokens_per_second"] for line in lines if line["split"] == "train"]
    return {
        "nats": result.valid_loss,
        "bits_per_byte": result.valid_bits_per_byte,
        "tokens": result.tokens,
        "seconds": result.seconds,
        "tokens_per_second": median(steps),
        "curve": [[line["tokens"], line["loss"] / math.log(2)] for line in lines if line["split"] == "valid"],
    }


def _train_task(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    assert job.task is not None
    task = tasks.find(job.task)[0]
    source = task.open(1, tasks.TRAIN_ROWS, job.seed)
    entrant = plan.controls[job.model]
    model = entrant.small(plan.task_width, plan.task_layers, job.seed, **tasks.domain(source))
    result = train.fit(model, source, folder, _config(job, plan.task_steps, None, weight_decay=0.0))
    return {"scores": tasks.score_all(model, task, job.seed), "nats": result.loss, "seconds": result.seconds}


@torch.no_grad()
def _speed(plan: Plan, job: Job, folder: Path) -> dict[str, Any]:
    """Sizes, and medians of three on one thread: a prompt of PREFILL tokens at once, then DECODED tokens one by one."""
    model = plan.entrants[job.model].build(plan.source().vocab_size).eval()
    prompt = torch.zeros(1, PREFILL, dtype=torch.long)
    prefill, decode = [], []
    for _ in range(4):
        started = time.perf_counter()
        _, state = model(prompt)
        prefill.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(DECODED):
            _, state = model(prompt[:, :1], state)
        decode.append(time.perf_counter() - started)
    return {
        "parameters": cost.parameters(model),
        "flops_per_token": cost.flops_per_token(model),
        "state_bytes": dict(zip(LENGTHS, cost.sizes(model, list(LENGTHS.values())), strict=True)),
        "prefill_tokens_per_second": PREFILL / median(prefill[1:]),
        "decode_tokens_per_second": DECODED / median(decode[1:]),
    }


def _text(plan: Plan, job: Job) -> tuple[Excerpt, Model]:
    """The seed is that of the weights: all runs read the same tokens in the same order."""
    source = Excerpt(plan.source())
    return source, plan.entrants[job.model].build(source.vocab_size, job.seed)


def _config(job: Job, steps: int, valid_every: int | None, weight_decay: float = 0.1) -> train.TrainConfig:
    assert job.rate is not None
    return train.TrainConfig(
        steps=steps,
        lr=job.rate,
        optimizer="muon",
        schedule="wsd",
        cooldown=0.4,
        weight_decay=weight_decay,
        valid_every=valid_every,
        seed=job.seed,
    )
