"""Stack: layers over vectors instead of tokens, with a State: what a drafter reads with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel import patterns
from runnel.frame import Embedding
from runnel.lineage import Lineage
from runnel.links import EMBEDDING, TOKENS, Links, Tokens, given, taken
from runnel.mixer import Mixer, RMSNorm
from runnel.model import layers_of, through
from runnel.state import Memory, Place, State, gathered

BASE, DIGITS = 128, 4
"""A token is carried as so many numbers, which floats of every width hold exactly."""


class Stack(nn.Module):
    """layers: of a model. norm: what their output goes through.

    before, after: widths of the links that the vectors read, or made, carry behind the residual stream (`sliced`).
    embedding: whose table layers that take the tokens look at; no part of the stack.
    """

    def __init__(
        self,
        layers: Iterable[nn.Module],
        norm: nn.Module,
        before: Mapping[str, int] | None = None,
        after: Mapping[str, int] | None = None,
        embedding: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm
        self.before, self.after = dict(before or {}), dict(after or {})
        self._embedding = (embedding,)  # not registered

    @classmethod
    def build(cls, pattern: str, d_model: int) -> Stack:
        """Fresh layers (see `runnel.patterns`), with a norm after them."""
        return cls(layers_of(patterns.parse(pattern, "swiglu"), d_model), RMSNorm(d_model))

    def init_state(self, batch_size: int) -> State:
        mixers: list[Mixer] = [layer.mixer for layer in self.layers]  # type: ignore[misc]
        lengths = torch.zeros(batch_size, dtype=torch.long, device=next((p.device for p in self.parameters()), None))
        return State(tuple(mixer.init_state(batch_size) for mixer in mixers), lengths, self._identify)

    def embedded(self, x: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B E"]:
        """What first layers read: the vectors of tokens, and the tokens themselves where a layer takes them."""
        return torch.cat([x, digits(tokens).to(x)], dim=-1) if TOKENS in self.before else x

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The outputs, and the state after them."""
        batch_size, length = x.shape[:2]
        state = self.init_state(batch_size) if state is None else state
        lineage = Lineage.sequence(batch_size, length, x.device) if lineage is None else lineage
        lineage, (x, links) = lineage.at(state.lengths), self._opened(x)
        x, layers, links = through(self.layers, x, state.layers, lineage, links)
        y = torch.cat([self.norm(x), *[_vectors(links[name]).to(x) for name in self.after]], dim=-1)
        return y, State(layers, lineage.end, state.identify)

    def read(self, pieces: Sequence[Tensor], places: Sequence[Place]) -> tuple[list[Tensor], State]:
        """Read vectors (T, D), at least one, after each place: the outputs (T, D) of each, and the state after all."""
        lengths = [len(piece) for piece in pieces]
        x = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
        valid = torch.arange(x.shape[1], device=x.device) < torch.tensor(lengths, device=x.device)[:, None]
        y, state = self(x, gathered(places), None if bool(valid.all()) else Lineage.padded(valid))
        return [own[:length] for own, length in zip(y, lengths, strict=True)], state

    @torch.no_grad()
    def states_at(self, x: Float[Tensor, "B T D"], places: Sequence[int], lineage: Lineage) -> list[State]:
        """The states after some places of a chain, in order."""
        states: list[State] = []
        for begin, end in pairwise([0, *[place + 1 for place in places]]):
            reset, valid = [None if mask is None else mask[:, begin:end] for mask in (lineage.reset, lineage.valid)]
            part = Lineage(lineage.start, end - begin, reset, valid)
            states.append(self(x[:, begin:end], states[-1] if states else None, part)[1])
        return states

    def _opened(self, x: Tensor) -> tuple[Tensor, Links]:
        """The residual stream, and the links that came behind it."""
        x, *values = x.split([x.shape[-1] - sum(self.before.values()), *self.before.values()], dim=-1)
        links: dict[str, Memory] = {EMBEDDING: x, **dict(zip(self.before, values, strict=True))}
        if TOKENS in self.before:
            (embedding,) = self._embedding
            assert isinstance(embedding, nn.Embedding), "layers that take tokens need the embedding"
            table = embedding.scaled(embedding.weight) if isinstance(embedding, Embedding) else embedding.weight
            links[TOKENS] = Tokens(from_digits(links[TOKENS])[..., None], table)
        return x, links

    def _identify(self) -> str:
        return "the state of a drafter's own layers"


def digits(tokens: Int[Tensor, "*B"]) -> Int[Tensor, "*B 4"]:
    """Tokens in base 128, the last digit first."""
    return torch.stack([tokens // BASE**place % BASE for place in range(DIGITS)], dim=-1)


def from_digits(carried: Float[Tensor, "*B 4"]) -> Int[Tensor, "*B"]:
    return sum(digit.long() * BASE**place for place, digit in enumerate(carried.unbind(-1)))


def _vectors(link: Memory) -> Tensor:
    """How a link is carried."""
    if isinstance(link, Tokens):
        return digits(link.ids[..., 0])
    assert isinstance(link, Tensor)
    return link


def sliced(
    layers: Sequence[nn.Module], cuts: Sequence[int], norm: nn.Module, d_model: int, embedding: nn.Module | None = None
) -> list[Stack]:
    """Layers cut at some depths, `norm` after the last. Vectors between stacks carry the links that cross the cut.

    embedding: of the tokens that the first layer reads.
    """
    first = {name: width for name, width in crossing_links(layers, 0, d_model).items() if name != EMBEDDING}
    crossing = [first, *[crossing_links(layers, cut, d_model) for cut in cuts], {}]
    ends = [0, *cuts, len(layers)]
    norms = [*[nn.Identity() for _ in cuts], norm]
    return [
        Stack(layers[begin:end], own, before, after, embedding)
        for (begin, end), own, (before, after) in zip(pairwise(ends), norms, pairwise(crossing), strict=True)
    ]


def crossing_links(layers: Sequence[nn.Module], cut: int, d_model: int) -> dict[str, int]:
    """The links that layers from `cut` on take of those before it, with their widths.

    ValueError where one is no vector of each token, so that nothing can carry it over.
    """
    mixers: list[Mixer] = [layer.mixer for layer in layers]  # type: ignore[misc]
    known: dict[str, int | None] = {EMBEDDING: d_model, TOKENS: DIGITS}
    for mixer in mixers[:cut]:
        known |= given(mixer)
    wanted, above = dict[str, int](), set[str]()
    for layer, mixer in enumerate(mixers[cut:], start=cut):
        for name in taken(mixer):
            width = known.get(name)
            if name not in above and width is None:
                raise ValueError(f"layers cannot be cut apart at {cut}: layer {layer} takes {name!r} of one before")
            if name not in above and width is not None:
                wanted[name] = width
        above |= given(mixer).keys()
    return wanted


def added(vectors: Float[Tensor, "*B E"], change: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
    """Vectors with something added to their residual stream, and not to what they carry behind it."""
    return vectors + nn.functional.pad(change, (0, vectors.shape[-1] - change.shape[-1]))


class Leading(nn.Module):
    """A norm of the residual stream alone, for vectors that carry links behind it."""

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm, self.width = norm, width

    def forward(self, x: Float[Tensor, "*B E"]) -> Float[Tensor, "*B D"]:
        return self.norm(x[..., : self.width])


def part_of(places: Sequence[Place], layers: slice) -> list[Place]:
    """The places in states of some of the layers."""
    states = {id(state): State(state.layers[layers], state.lengths, state.identify) for state, _ in places}
    return [(states[id(state)], row) for state, row in places]
