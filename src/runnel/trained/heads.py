"""Heads: drafters that guess several tokens from one hidden vector of the target, and share all but the head itself.

Head i = 1, 2, ... guesses the token i places after the newest one, x_1, which was picked from the hidden vector h:

    p_i(x_{i+1} | h, x_1, ..., x_i)

In training h is the target's vector after x_0, for every place of a text, so the same function serves both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from runnel.draft import Draft, Draw, Seen
from runnel.lineage import Lineage
from runnel.state import Place
from runnel.trained import TrainedConfig, TrainedDrafter
from runnel.trained.stack import Stack
from runnel.trees import Asked, Sketch, grow_all
from runnel.types import IGNORE, Batch


@dataclass(frozen=True)
class HeadsConfig(TrainedConfig):
    """heads >= 1: how many tokens ahead are guessed."""

    heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1:
            raise ValueError(f"heads must be at least 1; got {self.heads}")


@dataclass
class Memory:
    """newest: the newest token. hidden: the vector (D,) that it was picked from, as the heads see it; None before the
    first one. unread: vectors (T, D) that came since. read: the place of the reader's state before them.
    """

    newest: int
    draw: Draw
    hidden: Tensor | None = None
    unread: list[Tensor] = field(default_factory=list)
    read: Place | None = None


class Guess(NamedTuple):
    """What head `head` says at M places of a batch, what comes there, and what the target says of it."""

    head: int
    logits: Float[Tensor, "M V"]
    tokens: Int[Tensor, "M"]
    taught: Float[Tensor, "M V"]


class Guesser(Protocol):
    """Whatever guesses several places from one."""

    def guesses(self, batch: Batch) -> Iterator[Guess]: ...


class Heads(TrainedDrafter):
    """reader: layers that the target's vectors go through, in order, before the heads see them; or none."""

    config: HeadsConfig
    reader: Stack | None
    reads_hidden = looks_back = True

    @abstractmethod
    def guess(self, hidden: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B i"]) -> Float[Tensor, "*B V"]:
        """The logits of head i after h and x_1, ..., x_i."""

    # ---- drafting -----------------------------------------------------------------------------------------------

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(prompt[-1], draw, read=None if self.reader is None else (self.reader.init_state(1), 0))

    def read(self, memory: Memory, hidden: Tensor) -> None:
        if len(hidden):
            memory.unread.append(hidden)

    def look_back(self, memory: Memory, seen: Seen) -> None:
        memory.unread.append(seen.hidden[seen.path])

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        memory.newest = tokens[-1]

    @torch.no_grad()
    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        drafting = [memory for memory, budget in zip(memories, budgets, strict=True) if budget > 0]
        self._look([memory for memory in drafting if memory.unread])
        sketches, draws = [Sketch() for _ in memories], [memory.draw for memory in memories]
        depths = [
            0 if memory.hidden is None else min(budget, self.config.heads)
            for memory, budget in zip(memories, budgets, strict=True)
        ]
        grow_all(self.builder, sketches, draws, depths, lambda asked: self._after(memories, sketches, asked))
        return [sketch.draft() for sketch in sketches]

    def _look(self, memories: Sequence[Memory]) -> None:
        """Turn what is unread into the vector that the heads see."""
        if self.reader is None:
            for memory in memories:
                memory.hidden = memory.unread[-1][-1]
        elif memories:
            places = [memory.read for memory in memories if memory.read is not None]
            vectors, state = self.reader.read([torch.cat(memory.unread) for memory in memories], places)
            for row, memory in enumerate(memories):
                memory.hidden, memory.read = vectors[row][-1], (state, row)
        for memory in memories:
            memory.unread = []

    def _after(self, memories: Sequence[Memory], sketches: Sequence[Sketch], asked: Asked) -> dict[int, Tensor]:
        """The logits after nodes of the rows' sketches: nodes of one depth in one call."""
        by_depth: dict[int, list[tuple[int, int, list[int]]]] = {}
        for row, nodes in asked.items():
            for place, node in enumerate(nodes):
                tokens = [memories[row].newest, *sketches[row].path(node)]
                by_depth.setdefault(len(tokens), []).append((row, place, tokens))
        found: dict[tuple[int, int], Tensor] = {}
        for group in by_depth.values():
            hidden = torch.stack([_known(memories[row].hidden) for row, _, _ in group])
            logits = self.guess(hidden, torch.tensor([tokens for *_, tokens in group], device=hidden.device))
            for (row, place, _), each in zip(group, logits.double().cpu(), strict=True):
                found[row, place] = each
        return {row: torch.stack([found[row, place] for place in range(len(nodes))]) for row, nodes in asked.items()}

    # ---- training -----------------------------------------------------------------------------------------------

    def guesses(self, batch: Batch) -> Iterator[Guess]:
        """What every head says of a batch, at all places whose tokens it knows and whose own token counts."""
        lineage = None if batch.segments is None else Lineage.packed(batch.segments)
        with torch.no_grad():
            target = self.target.read(batch.inputs, lineage=lineage)
        hidden = target.hidden if self.reader is None else self.reader(target.hidden, lineage=lineage)[0]
        length = batch.inputs.shape[1]
        for head in range(1, min(self.config.heads, length - 1) + 1):
            kept = countable(batch, torch.arange(length - head, device=hidden.device), head)
            if bool(kept.any()):
                known = batch.inputs.unfold(1, head + 1, 1)[..., 1:]  # (B, T - head, head)
                logits = self.guess(hidden[:, :-head][kept], known[kept])
                yield Guess(head, logits, batch.targets[:, head:][kept], target.logits[:, head:][kept])


def countable(batch: Batch, places: Int[Tensor, "A"], ahead: int) -> Bool[Tensor, "B A"]:
    """Where the target `ahead` places on from each place counts, and all from the place to it is of one document."""
    counted = batch.targets[:, places + ahead] != IGNORE
    segments = batch.segments
    return counted if segments is None else counted & (segments[:, places] == segments[:, places + ahead])


def spread(length: int, count: int, anywhere: bool) -> Int[Tensor, "A"]:
    """About `count` of `length` places, evenly; from a random one on where they may begin anywhere."""
    every = max(1, length // count)
    return torch.arange(int(torch.randint(every, ())) if anywhere else every - 1, length, every)


def weighted(losses: Sequence[tuple[Any, float]]) -> Any:
    """The mean of (loss, weight) pairs. ValueError when there are none."""
    if not losses:
        raise ValueError("batch must hold rows that are longer than one token; no head has anything to guess")
    return sum(loss * weight for loss, weight in losses) / sum(weight for _, weight in losses)


def _known(hidden: Tensor | None) -> Tensor:
    assert hidden is not None
    return hidden
