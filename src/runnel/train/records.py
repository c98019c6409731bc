"""The plain values of a run: where it is, what it tells, how it ended. Losses are nats per target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Position:
    """Where a run is; with the tensors, all that a checkpoint holds.

    tokens: targets learned from. seconds: of training. loss: of the last step. valid_loss: of the last validation, made
    at step `validated`; valid_bytes: mean bytes of a held-out target, None without a codec. best: the lowest validation
    loss; stale: validations since then.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    valid_loss: float | None = None
    valid_bytes: float | None = None
    validated: int = 0
    best: float | None = None
    stale: int = 0

    def as_line(self) -> dict[str, Any]:
        """The line of metrics.jsonl after a validation."""
        assert self.valid_loss is not None
        bits = bits_per_byte(self.valid_loss, self.valid_bytes)
        where = {"split": "valid", "step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        return {**where, **losses(self.valid_loss, bits)}


@dataclass(frozen=True)
class StepReport:
    """What `on_step` is given after each step.

    progress: in [0, 1] along the steps or the budget. bits_per_byte: None without a codec. valid_loss: the last one,
    None before the first validation. grad_norm: before clipping. tokens, seconds: since step 0.
    """

    step: int
    progress: float
    loss: float
    bits_per_byte: float | None
    valid_loss: float | None
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    seconds: float

    def as_line(self) -> dict[str, Any]:
        """The line of metrics.jsonl."""
        return {
            "split": "train",
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            **losses(self.loss, self.bits_per_byte),
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens_per_second,
        }


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    loss: of the last step. valid_loss, valid_bits_per_byte: of the exported weights, None where nothing is held out;
    the bits also without a codec. stopped: "steps", "budget" or "patience".
    """

    folder: Path
    step: int
    tokens: int
    seconds: float
    loss: float
    valid_loss: float | None
    valid_bits_per_byte: float | None
    stopped: str


def losses(loss: float, bits_per_byte: float | None) -> dict[str, float]:
    """One loss in the units of metrics.jsonl."""
    line = {"loss": loss, "bits_per_token": loss / math.log(2)}
    return line if bits_per_byte is None else {**line, "bits_per_byte": bits_per_byte}


def bits_per_byte(loss: float, bytes_per_target: float | None) -> float | None:
    """Nats per target to bits per byte; None where the bytes are not known or are none."""
    return loss / math.log(2) / bytes_per_target if bytes_per_target else None
