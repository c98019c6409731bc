"""Name tables: which of their tensors make which of ours, and how. Import and export read the same table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Map(Protocol):
    """A reversible rearrangement of tensors: no number changes, so that a round trip gives the same bytes."""

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]: ...
    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]: ...


@dataclass(frozen=True)
class Same:
    """Tensor by tensor the same."""

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return list(theirs)

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return list(ours)


@dataclass(frozen=True)
class Joined:
    """Several of theirs, of `sizes` along the first axis, one after the other make one of ours."""

    sizes: tuple[int, ...]

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(theirs))]

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return list(ours[0].split(self.sizes))


@dataclass(frozen=True)
class Parted:
    """One of theirs is several of ours, of `sizes` along the first axis."""

    sizes: tuple[int, ...]

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return list(theirs[0].split(self.sizes))

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return [torch.cat(list(ours))]


@dataclass(frozen=True)
class Transposed:
    """A matrix of theirs is (inputs, outputs), as GPT-2's."""

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return [t.mT for t in theirs]

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return [t.mT for t in ours]


@dataclass(frozen=True)
class Shaped:
    """The same numbers in another shape."""

    our_shape: tuple[int, ...]
    their_shape: tuple[int, ...]

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return [t.reshape(self.our_shape) for t in theirs]

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return [t.reshape(self.their_shape) for t in ours]


@dataclass(frozen=True)
class Ordered:
    """Rows in another order: ours is theirs[order], order being a permutation of the first axis."""

    order: tuple[int, ...]

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return [t[list(self.order)] for t in theirs]

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        back = torch.tensor(self.order).argsort().tolist()
        return [t[back] for t in ours]


@dataclass(frozen=True)
class Stacked:
    """Several of ours (experts) are one of theirs with a leading axis."""

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        return [part.contiguous() for part in theirs[0]]

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        return [torch.stack(list(ours))]


@dataclass(frozen=True)
class Then:
    """Their tensors through one map, and what that makes through the next."""

    maps: tuple[Map, ...]

    def ours(self, theirs: Sequence[Tensor]) -> list[Tensor]:
        made = list(theirs)
        for step in self.maps:
            made = step.ours(made)
        return made

    def theirs(self, ours: Sequence[Tensor]) -> list[Tensor]:
        made = list(ours)
        for step in reversed(self.maps):
            made = step.theirs(made)
        return made


@dataclass(frozen=True)
class Entry:
    """Tensors of ours, tensors of theirs, and the map between them."""

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    how: Map = field(default_factory=Same)

    @property
    def our_names(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    @property
    def their_names(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs

    def required(self, ours: Sequence[Tensor]) -> list[tuple[int, ...]]:
        """The shapes that their tensors must have, from ours."""
        return [tuple(t.shape) for t in self.how.theirs([torch.empty(t.shape, device="meta") for t in ours])]
