"""Readings: texts on their way into a state, a piece at a time, so that nobody waits for another's long prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runnel.model import TextModel
from runnel.prefill import prefill, prefill_hidden, prefill_scored
from runnel.state import State, gathered


class Reading:
    """tokens: what is to be read after a state of one row. at: how many of them the state has read."""

    def __init__(self, tokens: Sequence[int], state: State, at: int = 0) -> None:
        self.tokens, self.state, self.at = tokens, state, at

    @property
    def left(self) -> int:
        return len(self.tokens) - self.at

    def piece(self, size: int) -> Sequence[int]:
        return self.tokens[self.at : self.at + size]

    @classmethod
    def step(cls, model: TextModel, readings: Sequence[Reading], sizes: Sequence[int]) -> None:
        """Read so many tokens of each, in one call of the model."""
        pieces = [reading.piece(size) for reading, size in zip(readings, sizes, strict=True)]
        state = cls.read(model, readings, pieces, gathered([(reading.state, 0) for reading in readings]))
        for row, (reading, size) in enumerate(zip(readings, sizes, strict=True)):
            reading.state, reading.at = gathered([(state, row)]), reading.at + size

    @classmethod
    def read(
        cls, model: TextModel, readings: Sequence[Reading], pieces: Sequence[Sequence[int]], state: State
    ) -> State:
        return prefill(model, pieces, state)


class Scored(Reading):
    """Also says how likely each token of a text but the first was, and the `top` likeliest in its place."""

    def __init__(self, text: Sequence[int], state: State, top: int) -> None:
        super().__init__(text[:-1], state)
        self.text, self.top = text, top
        self.logprobs: list[float] = []
        self.tops: list[dict[int, float]] = []

    def piece(self, size: int) -> Sequence[int]:
        return self.text[self.at : self.at + size + 1]  # the last one is scored, not read

    @classmethod
    def read(
        cls, model: TextModel, readings: Sequence[Reading], pieces: Sequence[Sequence[int]], state: State
    ) -> State:
        scored = [reading for reading in readings if isinstance(reading, Scored)]
        most = max(reading.top for reading in scored)
        logprobs, tops, state = prefill_scored(model, pieces, state, top=most)
        for row, reading in enumerate(scored):
            reading.logprobs += logprobs[row]
            if reading.top:
                reading.tops += [dict(list(found.items())[: reading.top]) for found in tops[row]]
        return state


class Averaged(Reading):
    """Also sums the vectors that the head sees after each token."""

    def __init__(self, tokens: Sequence[int], state: State) -> None:
        super().__init__(tokens, state)
        self.total: Tensor | None = None

    @classmethod
    def read(
        cls, model: TextModel, readings: Sequence[Reading], pieces: Sequence[Sequence[int]], state: State
    ) -> State:
        hidden, state = prefill_hidden(model, pieces, state)
        for reading, own in zip(readings, hidden, strict=True):
            assert isinstance(reading, Averaged)
            found = own.double().sum(0)
            reading.total = found if reading.total is None else reading.total + found
        return state

    def mean(self) -> Tensor:
        """(D,) the mean vector, of length 1."""
        assert self.total is not None
        return torch.nn.functional.normalize(self.total, dim=0)
