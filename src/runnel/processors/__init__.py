"""Processors: what changes the logits before a token is picked, one transformation a file.

A page defines a frozen `Config`, a `Processor` and `PAPERS`. A decoder runs its processors by stage, and within a stage
in the order in which they were given:

    bias -> penalty -> ban -> (temperature, top-k, top-p, min-p: `decoders/sample.py`) -> truncation -> the draw

A processor sees the logits that the one before it left, and the row's text as far as it is final: when a draft is
verified, the walk down the tree picks token after token, so that the text at every node is that of its own path. It is
a function of its arguments; what one has to remember of a row (`mirostat`) is a plain value in the row's `Text`, and
what it can tell from the tokens alone (`Constraint`) is kept on the row's `Trail`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from runnel import catalog
from runnel.codecs import Codec
from runnel.grammar import Grammar


class Stage(IntEnum):
    """When a processor runs. Those up to BAN see the model's logits, those of TRUNCATION the tempered law."""

    BIAS = 0
    PENALTY = 1
    BAN = 2
    TRUNCATION = 3


SPAN = 64
"""Tokens that a draft or a hypothesis may go back without the whole text being read again."""


class Trail:
    """What constraints made of the texts of one row, drafts and hypotheses included, so that none is read from its
    start for every token. It only saves time: what is asked for and not there is made again.
    """

    def __init__(self) -> None:
        self._known: dict[Constraint, dict[int, dict[tuple[int, ...], Any]]] = {}

    def read(self, constraint: Constraint, written: Sequence[int]) -> Any:
        """The constraint's memory of what was written."""
        if constraint not in self._known:
            self._known[constraint] = {0: {(): constraint.begin()}}
        known, text = self._known[constraint], tuple(written)
        size = next(size for size in sorted(known, reverse=True) if text[:size] in known[size])
        memory = known[size][text[:size]]
        for read in range(size + 1, len(text) + 1):
            memory = None if memory is None else constraint.follow(memory, text[read - 1])
            if read > len(text) - SPAN:
                known.setdefault(read, {})[text[:read]] = memory
        for old in [size for size in known if 0 < size <= len(text) - SPAN]:
            del known[old]
        return memory


@dataclass(frozen=True)
class Text:
    """A row as processors see it. prompt: what was given; written: what followed; stops: the tokens that end the row.

    memory: what each processor remembers of the row, by its name; nothing before the first token. trail: what
    constraints made of the row's texts.
    """

    prompt: Sequence[int]
    written: Sequence[int] = ()
    stops: frozenset[int] = frozenset()
    memory: Mapping[str, Any] = field(default_factory=dict)
    trail: Trail = field(default_factory=Trail, repr=False, compare=False)

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
    """A transformation of logits. alone: it stands for every other truncation. remembers: `note` is to be called.
    avoids: above 0 where it makes tokens less likely as soon as the text holds them, below 0 where likelier.
    """

    stage: Stage
    alone = False
    remembers = False
    avoids = 0.0

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


class Constraint(Processor):
    """What is written must be in a language: tokens that no text of it goes on with are banned, and so is the end where
    the text is not in it. The prompt plays no part.

    What a constraint remembers of a text is a value: `begin`, then `follow` for every token.
    """

    stage = Stage.BAN

    @abstractmethod
    def begin(self) -> Any:
        """The memory of an empty text."""

    @abstractmethod
    def follow(self, memory: Any, token: int) -> Any:
        """The memory after one more token; None when no text of the language begins like this."""

    @abstractmethod
    def allowed(self, memory: Any, vocab_size: int) -> Tensor:
        """(V,) bool, a new one: the tokens that may follow."""

    @abstractmethod
    def accepts(self, memory: Any) -> bool:
        """Whether the text may end here."""

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        if not stops:
            raise ValueError(f"{self.name} needs an eos: it says where a text may end")

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        found = torch.full_like(logits, -math.inf)
        for row, text in enumerate(texts):
            memory = text.trail.read(self, text.written)
            if memory is not None:
                allowed = self.allowed(memory, logits.shape[-1])
                allowed[list(text.stops)] = self.accepts(memory)
                found[row, allowed] = logits[row, allowed]
        return found


class GrammarConstraint(Constraint):
    """A constraint by a `Grammar`; its Config has the codec of the tokens."""

    @abstractmethod
    def grammar(self) -> Grammar:
        """The language. ValueError when there is none."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        try:
            self.language = self.grammar()
        except ValueError as error:
            raise ValueError(f"{self.name} cannot be followed: {error}") from None

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        super().check(vocab_size, stops, limit)
        check_codec(self.name, self.config.codec, vocab_size)

    def begin(self) -> Any:
        return self.language.begin()

    def follow(self, memory: Any, token: int) -> Any:
        return self.language.follow(memory, token)

    def allowed(self, memory: Any, vocab_size: int) -> Tensor:
        return self.language.allowed(memory)[:vocab_size]

    def accepts(self, memory: Any) -> bool:
        return self.language.accepts(memory)


def check_codec(name: str, codec: Codec, vocab_size: int) -> None:
    """ValueError unless the codec knows every token of the model."""
    if codec.vocab_size < vocab_size:
        raise ValueError(
            f"codec of {name} must know the model's {vocab_size} tokens; this one knows {codec.vocab_size}"
        )


def resolve(given: Sequence[str | Processor | Any]) -> tuple[Processor, ...]:
    """Processors by name, by Config or as they are, in the order in which they run."""
    found: list[Processor] = [catalog.make("processors", Processor, thing) for thing in given]
    names = [processor.name for processor in found if processor.name in catalog.names("processors")]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"each processor may be given once; got {name!r} {names.count(name)} times")
    against, towards = ([p.name for p in found if sign * p.avoids > 0] for sign in (1, -1))
    if against and towards:
        apart = f"{against[0]} makes tokens of the text less likely, {towards[0]} likelier"
        raise ValueError(f"penalties must not contradict each other; {apart}")
    return tuple(sorted(found, key=lambda processor: processor.stage))
