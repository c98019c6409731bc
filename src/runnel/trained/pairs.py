"""Pairs: drafters that read the target's features, each with the token that followed it, and guess the next feature.

The feature f_t is the vector that the target's head saw after x_t. A pair (f_t, x_{t+1}) knows which token was picked
where the feature left it open. All pairs of a text are true ones: a drafter never needs to take one back.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from runnel.draft import Draw, Seen
from runnel.lineage import Lineage
from runnel.trained import TrainedDrafter
from runnel.types import Batch


@dataclass
class PairsMemory:
    """prompt: the text at first. features (T, D), tokens: pairs that were not used yet. left: features whose
    tokens are not known yet.
    """

    prompt: list[int]
    draw: Draw
    features: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    left: list[Tensor] = field(default_factory=list)

    def taken(self) -> tuple[Tensor, list[int]]:
        """The pairs, which are then used."""
        features, tokens = torch.cat(self.features), self.tokens
        self.features, self.tokens = [], []
        return features, tokens


class Taught(NamedTuple):
    """A batch as pairs: features (B, T, D) with the tokens (B, T) after them; the features that come next, and what the
    target says there. kept: where the next place is of the same document.
    """

    features: Float[Tensor, "B T D"]
    tokens: Int[Tensor, "B T"]
    nexts: Float[Tensor, "B T D"]
    laws: Float[Tensor, "B T V"]
    kept: Bool[Tensor, "B T"]
    lineage: Lineage | None


class Pairs(TrainedDrafter):
    """ahead: how many places on from a pair's feature the one is that it foresees. window: most pairs it looks at."""

    reads_hidden = looks_back = True

    @property
    def ahead(self) -> int:
        return 1

    @property
    def window(self) -> int | None:
        return None

    @abstractmethod
    def foresee(
        self, features: Float[Tensor, "B T D"], tokens: Int[Tensor, "B T"], lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        """After every pair of whole texts: the vector that the law `ahead` places on is read from, and the feature."""

    def begin(self, prompt: Sequence[int], draw: Draw) -> PairsMemory:
        return PairsMemory(list(prompt), draw)

    def read(self, memory: PairsMemory, hidden: Tensor) -> None:
        if len(hidden):
            memory.features.append(hidden)
            memory.tokens.extend(memory.prompt[-len(hidden) :])

    def look_back(self, memory: PairsMemory, seen: Seen) -> None:
        memory.left.append(seen.hidden[seen.path])

    def advance(self, memory: PairsMemory, tokens: Sequence[int]) -> None:
        memory.features.extend(memory.left)
        memory.tokens.extend(tokens)
        memory.left = []

    def taught(self, batch: Batch) -> Taught:
        """What the target teaches. ValueError for rows that are too short to hold a pair."""
        if batch.inputs.shape[1] < 2:
            raise ValueError("batch must hold rows of at least two tokens; it holds rows of one")
        segments = torch.zeros_like(batch.inputs) if batch.segments is None else batch.segments
        with torch.no_grad():
            read = self.target.read(batch.inputs, lineage=None if batch.segments is None else Lineage.packed(segments))
        return Taught(
            features=read.hidden[:, :-1],
            tokens=batch.inputs[:, 1:],
            nexts=read.hidden[:, 1:],
            laws=read.logits[:, 1:],
            kept=(segments[:, :-1] == segments[:, 1:]) & (segments[:, 1:] >= 0),
            lineage=None if batch.segments is None else Lineage.packed(segments[:, :-1].contiguous()),
        )
