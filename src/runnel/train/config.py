"""What a training run is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from runnel import catalog
from runnel.train.schedules import SCHEDULES

OPTIMIZERS = ("adamw", "adamw8bit", "muon")
PRECISIONS = ("float32", "bfloat16")
CHECKPOINTS = ("whole", "sharded")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Exactly one of `steps` and `budget` is given; fractions are of the whole run.

    steps: optimiser steps. Such a run is reproducible to the bit on one machine with one number of threads.
    budget: seconds of training (validation included, the final validation not), carried over restarts. The schedule
        follows the clock, so two such runs differ.
    objective: name of a file in `runnel.objectives`.
    optimizer: "adamw", "adamw8bit" (moments of one byte a number), or "muon" (Muon for the hidden
        matrices, AdamW for the rest).
    lr: peak learning rate, multiplied by each parameter group's `lr_scale`.
    weight_decay: decoupled, only where the model's parameter groups ask for it.
    betas: AdamW's.
    schedule: "cosine" or "wsd"; warmup, cooldown: fractions of the run (cooldown only for "wsd");
    final: last learning rate over the peak.
    clip: largest norm of the gradient; None leaves it as it is.
    accumulate: micro-batches a step; step s reads `source.batch(s * accumulate + i)`.
    chunk: tokens of a row that are held at once (`over_time.py`); None holds whole rows.
    recompute: keep only each layer's input, and compute the layer again in the backward pass.
    shard: each of several ranks keeps its share of weights, gradients and optimiser state (FSDP2).
    shard_precision: what sharded weights are gathered and multiplied in; "bfloat16" halves the bytes. Gradients are
        summed and weights kept in what they are in. One process gathers nothing and rounds nothing.
    offload: with `shard`, what a rank keeps waits in the CPU's memory, where the optimiser takes its step.
    precision: "float32", or "bfloat16" for autocast (weights and optimiser state stay as they are).
    ema: decay of the exponential moving average of the weights, which is then what is validated and exported.
    valid_every: steps between validations; None leaves only the one at the end.
    patience: validations without a new best before the run stops and exports its best weights; None never stops early.
    save_seconds: least time between checkpoints; 0 saves after each step. One is also saved at step 0 and at the end.
    checkpoints: "whole", written by rank 0 while all wait, or "sharded": each rank writes its share while the run goes
        on (`parts.py`). Either is read whatever the number of ranks, and whatever was asked for before.
    log_every: steps between lines of metrics.jsonl.
    tensorboard: also write TensorBoard events to folder/tensorboard.
    seed: of PyTorch's generator at step 0 (dropout and the like; the source has its own seed).
    """

    steps: int | None = None
    budget: float | None = None
    objective: str = "next_token"
    optimizer: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    lr: float = 3e-3
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 0.02
    cooldown: float = 0.2
    final: float = 0.0
    clip: float | None = 1.0
    accumulate: int = 1
    chunk: int | None = None
    recompute: bool = False
    shard: bool = False
    shard_precision: Literal["float32", "bfloat16"] = "float32"
    offload: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    ema: float | None = None
    valid_every: int | None = 200
    patience: int | None = None
    save_seconds: float = 30.0
    checkpoints: Literal["whole", "sharded"] = "whole"
    log_every: int = 1
    tensorboard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.budget is None):
            raise ValueError(f"give exactly one of steps and budget; got steps={self.steps}, budget={self.budget}")
        self._check_choices()
        self._check_ranges()
        if self.chunk is not None and self.objective != "next_token":
            raise ValueError(f"chunk needs the objective next_token; got {self.objective}")
        if not self.shard and (self.offload or self.shard_precision != "float32"):
            found = f"offload={self.offload}, shard_precision={self.shard_precision}"
            raise ValueError(f"offload and shard_precision are options of shard; got shard=False, {found}")
        if self.shard and (self.ema is not None or self.patience is not None):
            raise ValueError(f"shard keeps one set of weights; got ema={self.ema}, patience={self.patience}")
        if self.shard and getattr(catalog.page("objectives", self.objective), "WHOLE", False):
            raise ValueError(f"the objective {self.objective} needs a model that is not sharded; got shard=True")
        if self.shard and self.optimizer == "adamw8bit":
            raise ValueError("adamw8bit cuts moments into blocks, shard into shares: choose one of them; got both")
        if self.patience is not None and self.valid_every is None:
            raise ValueError("patience counts validations, so it needs valid_every; got valid_every=None")

    def _check_choices(self) -> None:
        choices = {
            "optimizer": OPTIMIZERS,
            "schedule": tuple(SCHEDULES),
            "precision": PRECISIONS,
            "shard_precision": PRECISIONS,
            "checkpoints": CHECKPOINTS,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")

    def _check_ranges(self) -> None:
        for name in ("steps", "accumulate", "valid_every", "patience", "log_every", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        for name in ("budget", "lr", "clip"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ValueError(f"{name} must be a positive number; got {value}")
        for name in ("weight_decay", "save_seconds"):
            if not (0 <= getattr(self, name) < math.inf):
                raise ValueError(f"{name} must be a number of at least 0; got {getattr(self, name)}")
        for name in ("warmup", "cooldown", "ema", "final"):
            value = getattr(self, name)
            if value is not None and not (0 <= value < 1):
                raise ValueError(f"{name} must be in [0, 1); got {value}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1); got {self.betas}")
