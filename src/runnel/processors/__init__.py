"""Processors: what changes the logits before a token is picked, one transformation a file.

A page defines a frozen `Config`, a `Processor` and `PAPERS`. A decoder runs its processors by stage, and within a stage
in the order in which they were given:

    bias -> penalty -> ban -> (temperature, top-k, top-p, min-p: `decoders/sample.py`) -> truncation -> the draw

A processor sees the logits that the one before it left, and the row's text as far as it is final: when a draft is
verified, the walk down the tree picks token after token, so that the text at every node is that of its own path. It is
a function of its arguments; what one has to remember of a row (`mirostat`) is a plain value in the row's `Text`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from torch import Tensor

from runnel import catalog


class Stage(IntEnum):
    """When a processor runs. Those up to BAN see the model's logits, those of TRUNCATION the tempered law."""

    BIAS = 0
    PENALTY = 1
    BAN = 2
    TRUNCATION = 3


@dataclass(frozen=True)
class Text:
    """A row as processors see it. prompt: what was given; written: what followed; stops: the tokens that end the row.

    memory: what each processor remembers of the row, by its name; nothing before the first token.
    """

    prompt: Sequence[int]
    written: Sequence[int] = ()
    stops: frozenset[int] = frozenset()
    memory: Mapping[str, Any] = field(default_factory=dict)

    def newest(self, count: int | None = None) -> list[int]:
        """The last `count` tokens, or all; fewer where there are no more."""
        if count is None:
            return [*self.prompt, *self.written]
        from_prompt = max(0, count - len(self.written))
        first = max(0, len(self.prompt) - from_prompt)
        return [*self.prompt[first:], *self.written[max(0, len(self.written) - count) :]]


class Exhausted(ValueError):
    """Nothing is left that could be written."""


class Processor(ABC):
    """A transformation of logits. alone: it stands for every other truncation. remembers: `note` is to be called."""

    stage: Stage
    alone = False
    remembers = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def name(self) -> str:
        return catalog.page_name(self)

    @abstractmethod
    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        """logits (N, V) float64, -inf for what cannot be written -> new ones; row n is what follows texts[n]."""

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        """ValueError for what cannot be meant with so many tokens, these ends and texts of at most `limit` tokens."""
        return

    def note(self, text: Text, logits: Tensor, token: int) -> Any:
        """What to remember once the token was picked after the text; logits (V,) are what `process` was given."""
        return None


def resolve(given: Sequence[str | Processor | Any]) -> tuple[Processor, ...]:
    """Processors by name, by Config or as they are, in the order in which they run."""
    found: list[Processor] = [catalog.make("processors", Processor, thing) for thing in given]
    names = [processor.name for processor in found if processor.name in catalog.names("processors")]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each processor may be given once; got {name!r} {names.count(name)} times")
    return tuple(sorted(found, key=lambda processor: processor.stage))
