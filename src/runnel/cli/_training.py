"""What `train` and `demo` share: a run with a progress bar, and the baselines that a loss is read beside."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from runnel.cli import _screen
from runnel.cli._errors import Failure

if TYPE_CHECKING:
    from runnel.data import Source
    from runnel.train import Ranks, StepReport, TrainConfig, TrainResult
    from runnel.train.learner import Learner

SMOOTHED = 20
"""Steps whose mean loss the progress bar shows."""
SAMPLE = 8 << 20
"""Bytes of the training text that n-grams count; a longer text gives them its last so many."""


def set_threads(threads: int | None) -> None:
    """Use so many CPU threads from here on; as many as PyTorch likes when None."""
    import torch

    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads must be at least 1; got {threads}")
    torch.set_num_threads(threads)


@contextmanager
def ranks(mesh: str | None, exchange: str) -> Iterator[Ranks]:
    """This process among those that torchrun started; only rank 0 says anything."""
    from runnel import train

    try:
        with (
            train.opened(None if mesh is None else train.Mesh.parse(mesh), exchange) as place,
            ExitStack() as quiet,
        ):
            if not place.is_first:
                nowhere = quiet.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
                quiet.enter_context(redirect_stdout(nowhere))
                quiet.enter_context(redirect_stderr(nowhere))
            yield place
    except train.RankFailed as error:
        raise Failure(str(error)) from error


def fit(
    model: Learner,
    source: Source,
    folder: Path,
    config: TrainConfig,
    baselines: Mapping[str, float],
    title: str = "training",
    ranks: Ranks | None = None,
) -> TrainResult:
    """`runnel.train.fit` with a bar. KeyboardInterrupt or Failure, saying how to go on, when it does not end."""
    from runnel import train

    try:
        with _screen.bar(title) as shown:
            return train.fit(model, source, folder, config, on_step=Progress(shown, baselines).update, ranks=ranks)
    except train.Interrupted as stopped:
        raise KeyboardInterrupt(str(stopped)) from None
    except train.Diverged as error:
        raise Failure(str(error)) from error


class Progress:
    """Turns reports of steps into a line: loss beside the baselines, speed, time left."""

    def __init__(self, bar: _screen.Bar, baselines: Mapping[str, float]) -> None:
        self.bar = bar
        listed = ", ".join(f"{name} {bits:.2f}" for name, bits in baselines.items())
        self.beside = f" ({listed})" if listed else ""
        self.recent: deque[float] = deque(maxlen=SMOOTHED)
        self.first: StepReport | None = None

    def update(self, report: StepReport) -> None:
        if self.first is None:
            self.first = report
            if report.step > 1:
                _screen.note(f"going on from step {report.step - 1}")
        bits, unit = _bits(report)
        self.recent.append(bits)
        loss = f"{sum(self.recent) / len(self.recent):.3f} {unit}{self.beside}"
        speed = report.tokens / report.seconds if report.seconds else 0.0
        self.bar.update(
            report.progress,
            f"{loss}, {speed:,.0f} tokens/s, {_screen.clock(self._left(report))} left",
        )

    def _left(self, report: StepReport) -> float:
        """Seconds to go, at the pace since this process took up the run."""
        assert self.first is not None
        done = report.progress - self.first.progress
        elapsed = report.seconds - self.first.seconds
        return elapsed * (1 - report.progress) / done if done > 0 else 0.0


def text_baselines(source: Source, orders: Mapping[str, int]) -> dict[str, float]:
    """Bits per held-out byte of n-grams that counted the training bytes. Empty where the source is no text."""
    from runnel.data import text
    from runnel.data.baselines import ngram

    if not isinstance(source, text.Source):
        return {}
    train, held_out = source.sample(SAMPLE)
    if not held_out:
        return {}
    bits = ngram.bits_per_byte(train, held_out, max(orders.values()))
    return {name: bits[order] for name, order in orders.items()}


def known_losses(source: Source) -> dict[str, float]:
    """What a generator knows of its own best and trivial losses, in bits per token."""
    return {
        key.removesuffix("_nats").replace("_", " "): value / math.log(2)
        for key, value in source.facts.items()
        if key.endswith("_nats")
    }


def _bits(report: StepReport) -> tuple[float, str]:
    if report.bits_per_byte is not None:
        return report.bits_per_byte, "bits/byte"
    return report.loss / math.log(2), "bits/token"
