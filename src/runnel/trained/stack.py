"""Stack: layers over vectors instead of tokens, with a State: what a drafter reads with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import patterns
from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm
from runnel.model import Layer
from runnel.state import Place, State, gathered


class Stack(nn.Module):
    """layers: of a model. norm: what their output goes through."""

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    @classmethod
    def build(cls, pattern: str, d_model: int) -> Stack:
        """Fresh layers (see `runnel.patterns`), with a norm after them."""
        return cls((Layer(spec, d_model) for spec in patterns.parse(pattern, "swiglu")), RMSNorm(d_model))

    def init_state(self, batch_size: int) -> State:
        mixers: list[Mixer] = [layer.mixer for layer in self.layers]  # type: ignore[misc]
        lengths = torch.zeros(batch_size, dtype=torch.long, device=next((p.device for p in self.parameters()), None))
        return State(tuple(mixer.init_state(batch_size) for mixer in mixers), lengths, self._identify)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The outputs, and the state after them."""
        batch_size, length = x.shape[:2]
        state = self.init_state(batch_size) if state is None else state
        lineage = Lineage.sequence(batch_size, length, x.device) if lineage is None else lineage
        lineage, after = lineage.at(state.lengths), []
        for layer, memory in zip(self.layers, state.layers, strict=True):
            x, memory = layer(x, memory, lineage)
            after.append(memory)
        return self.norm(x), State(tuple(after), lineage.end, state.identify)

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

    def _identify(self) -> str:
        return "the state of a drafter's own layers"


def part_of(places: Sequence[Place], layers: slice) -> list[Place]:
    """The places in states of some of the layers."""
    states = {id(state): State(state.layers[layers], state.lengths, state.identify) for state, _ in places}
    return [(states[id(state)], row) for state, row in places]
