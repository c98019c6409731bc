"""Guidance: what is written follows several streams at once, each a model that has read a prompt of its own.

A page defines a frozen `Config`, a `Guidance` and `PAPERS`. It says which streams there are and how their logits become
one. `Guided` steps them together and has the surface of a model: its state is one value that holds the state of every
stream, so that every decoder, drafter, acceptance rule and search works on it as on a model.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from runnel import catalog
from runnel.lineage import Lineage
from runnel.model import Model, ModelConfig, Reading
from runnel.prefill import CHUNK, prefill
from runnel.state import Memory, PendingState, State
from runnel.tree import DraftTree, Verification


class Guidance(ABC):
    """A rule. The first stream is the model with the prompts as they are given."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def others(self, model: Model) -> list[Model]:
        """The models of the further streams."""

    @abstractmethod
    def prompts(self, texts: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        """For each further stream what it reads in the place of the prompts. Every text ends with the newest token of
        its prompt, which all streams are given together.
        """

    @abstractmethod
    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        """The logits (..., V) of every stream -> those that are decoded."""


class Stream(NamedTuple):
    """The state of one stream."""

    layers: Memory
    lengths: Tensor


@dataclass(frozen=True)
class Identities:
    """The fingerprint of the models that the streams of a state belong to."""

    parts: tuple[Callable[[], str], ...]

    def __call__(self) -> str:
        return hashlib.sha256(" ".join(identify() for identify in self.parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class JointPending(PendingState):
    """Every stream's own pending state."""

    parts: tuple[PendingState, ...]

    def committed(self, paths: Sequence[Sequence[int]]) -> State:
        return _joined([part.committed(paths) for part in self.parts])


class Guided:
    """A model under guidance. Its states hold all streams, and are as long as the first one."""

    def __init__(self, model: Model, guidance: Guidance | Any) -> None:
        self.guidance: Guidance = catalog.make("guidance", Guidance, guidance)
        self.models = [model, *self.guidance.others(model)]
        known = [each.config.vocab_size for each in self.models]
        if len(set(known)) > 1:
            raise ValueError(f"models that guide each other must know the same tokens; got vocab_size {known}")

    @property
    def config(self) -> ModelConfig:
        return self.models[0].config

    @property
    def device(self) -> torch.device:
        return self.models[0].device

    def fingerprint(self) -> str:
        return Identities(tuple(model.fingerprint for model in self.models))()

    def init_state(self, batch_size: int) -> State:
        """The zero state of every stream."""
        return _joined([model.init_state(batch_size) for model in self.models])

    def begun(self, state: State, texts: Sequence[Sequence[int]], chunk: int = CHUNK) -> State:
        """The state once the further streams have read what they read instead of the prompts, but the newest token."""
        first, *others = self._parts(state)
        given = zip(self.models[1:], self.guidance.prompts(texts), others, strict=True)
        return _joined([first, *(prefill(model, [t[:-1] for t in own], part, chunk) for model, own, part in given)])

    def read(self, inputs: Tensor, state: State | None = None, lineage: Lineage | None = None) -> Reading:
        """The same tokens for all streams. hidden: the first stream's."""
        parts = self._parts(self.init_state(inputs.shape[0]) if state is None else state)
        reads = [model.read(inputs, part, lineage) for model, part in zip(self.models, parts, strict=True)]
        logits = self.guidance.combine([read.logits for read in reads])
        return Reading(logits, reads[0].hidden, _joined([read.state for read in reads]))

    def __call__(
        self, inputs: Tensor, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Tensor, State]:
        read = self.read(inputs, state, lineage)
        return read.logits, read.state

    def features(
        self, inputs: Tensor, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Tensor, State]:
        read = self.read(inputs, state, lineage)
        return read.hidden, read.state

    def own_state(self, state: State) -> State:
        """The state of the first stream."""
        return self._parts(state)[0]

    def verify(self, state: State, tree: DraftTree) -> Verification:
        """As `Model.verify`; what is committed, every stream commits."""
        outs = [model.verify(part, tree) for model, part in zip(self.models, self._parts(state), strict=True)]
        first = outs[0].pending
        nodes = first.columns, first.row_of, first.parent_of
        pending = JointPending(state, first.layers, *nodes, tuple(out.pending for out in outs))
        return Verification(self.guidance.combine([out.logits for out in outs]), outs[0].hidden, pending)

    def _parts(self, state: State) -> list[State]:
        """The state of each stream."""
        streams, identify = state.layers, state.identify
        found = len(streams) if all(isinstance(stream, Stream) for stream in streams) else 0
        if found != len(self.models):
            raise ValueError(f"the state of {len(self.models)} guided streams is needed; got one of {found or 'none'}")
        models = [model.fingerprint for model in self.models]  # a state that was loaded does not know its parts
        makers = identify.parts if isinstance(identify, Identities) else models
        return [State(stream.layers, stream.lengths, maker) for stream, maker in zip(streams, makers, strict=True)]


class First:
    """The first stream of a guided model alone: it reads, and the others stay where they are."""

    def __init__(self, guided: Guided) -> None:
        self.guided, self.config, self.device = guided, guided.config, guided.device

    def features(
        self, inputs: Tensor, state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Tensor, State]:
        assert state is not None
        first, *others = self.guided._parts(state)
        hidden, first = self.guided.models[0].features(inputs, first, lineage)
        return hidden, _joined([first, *others])


def _joined(parts: Sequence[State]) -> State:
    """The states of the streams as one."""
    streams = tuple(Stream(part.layers, part.lengths) for part in parts)
    return State(streams, parts[0].lengths, Identities(tuple(part.identify for part in parts)))


def own_prompts(
    name: str, prompts: Sequence[Sequence[int]] | None, texts: Sequence[Sequence[int]]
) -> list[Sequence[Sequence[int]]]:
    """What a further stream reads: the prompts that were given for it, or only the newest tokens."""
    if prompts is None:
        return [[text[-1:] for text in texts]]
    if len(prompts) != len(texts):
        raise ValueError(f"{name} needs one prompt for each of the {len(texts)} prompts; got {len(prompts)}")
    for row, (own, text) in enumerate(zip(prompts, texts, strict=True)):
        if len(own) == 0 or own[-1] != text[-1]:
            raise ValueError(
                f"a prompt of {name} must end with the token that its prompt ends with, {text[-1]}, which all streams "
                f"read together; got {list(own[-1:])} at row {row}"
            )
    return [[list(own) for own in prompts]]
