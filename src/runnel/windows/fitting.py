"""The one training loop of window models: AdamW, early stopping on validation, a limit of steps and of seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

if TYPE_CHECKING:
    from runnel.windows.model import WindowModel
    from runnel.windows.series import WindowSet

LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": torch.square,
    "mae": torch.abs,
    "huber": lambda error: smooth_l1_loss(error, torch.zeros_like(error), reduction="none"),
}
VALID_BATCH = 256


@dataclass(frozen=True)
class FitConfig:
    """How a window model is fitted.

    steps: the most; the rate falls from `lr` to zero along a cosine over them. seconds: the most, or None.
    valid_every: steps between validations; patience: validations without a new best before the end.
    valid_windows: at most so many windows of validation, evenly spaced.
    """

    loss: str = "mse"
    lr: float = 1e-3
    batch_size: int = 64
    steps: int = 2000
    seconds: float | None = None
    valid_every: int = 100
    patience: int = 6
    valid_windows: int = 2048
    weight_decay: float = 1e-4
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}")
        for name in ("lr", "batch_size", "steps", "valid_every", "patience", "valid_windows", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}")

    def of_errors(self, error: Tensor) -> Tensor:
        """The loss of each error."""
        return LOSSES[self.loss](error)


@dataclass(frozen=True)
class FitReport:
    """valid_loss: of the weights that were kept. steps: made before the end. seconds: spent."""

    valid_loss: float
    steps: int
    seconds: float


def minimise(
    model: WindowModel,
    train: WindowSet,
    valid: WindowSet,
    config: FitConfig,
    progress: Callable[[float, str], None],
) -> FitReport:
    """Train by gradients and keep the weights of the best validation. ValueError when the loss is not finite."""
    started = time.perf_counter()
    held = valid.every(math.ceil(len(valid) / config.valid_windows) or 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    best, kept, stale, step = math.inf, _copy(model), 0, 0
    with torch.random.fork_rng(devices=[]):  # dropout has the fit's own randomness
        torch.manual_seed(config.seed)
        for step, index in enumerate(_order(len(train), config), start=1):
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps))
            loss = model.loss(train.take(index), config)
            if not bool(loss.isfinite()):
                raise ValueError(f"the loss must stay finite; it is {loss.item()} at step {step}: lower lr={config.lr}")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            late = config.seconds is not None and time.perf_counter() - started > config.seconds
            if step % config.valid_every and step < config.steps and not late:
                continue
            score = validate(model, held, config)
            progress(step / config.steps, f"step {step}, validation {score:.4f}")
            stale = stale + 1 if score >= best else 0
            if score < best:
                best, kept = score, _copy(model)
            if late or stale >= config.patience:
                break
    model.load_state_dict(kept)
    model.eval()
    return FitReport(best, step, time.perf_counter() - started)


@torch.no_grad()
def validate(model: WindowModel, windows: WindowSet, config: FitConfig) -> float:
    """The loss over windows, all of them alike."""
    model.eval()
    total = sum(float(model.loss(w, config)) * w.batch_size for w in windows.batches(VALID_BATCH))
    return total / max(len(windows), 1)


def _order(count: int, config: FitConfig) -> Iterator[Int[Tensor, "B"]]:
    """Batches of a fresh shuffle each epoch, as many as there are steps."""
    generator = torch.Generator().manual_seed(config.seed)
    made = 0
    while made < config.steps:
        for index in torch.randperm(count, generator=generator).split(config.batch_size):
            if made == config.steps:
                return
            made += 1
            yield index


def _copy(model: WindowModel) -> dict[str, Float[Tensor, "..."]]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
