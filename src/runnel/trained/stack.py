"""Stack: layers over vectors instead of tokens, with a State: what a drafter reads its target's hidden vectors with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import patterns
from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm
from runnel.model import Layer
from runnel.state import Place, State, gathered


class Stack(nn.Module):
    """pattern: see `runnel.patterns`."""

    def __init__(self, pattern: str, d_model: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(spec, d_model) for spec in patterns.parse(pattern, "swiglu"))
        self.norm = RMSNorm(d_model)

    def init_state(self, batch_size: int) -> State:
        mixers: list[Mixer] = [layer.mixer for layer in self.layers]  # type: ignore[misc]
        lengths = torch.zeros(batch_size, dtype=torch.long, device=self.norm.weight.device)
        return State(tuple(mixer.init_state(batch_size) for mixer in mixers), lengths, self._identify)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State | None = None, lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """The normalised outputs, and the state after them."""
        batch_size, length = x.shape[:2]
        state = self.init_state(batch_size) if state is None else state
        lineage = Lineage.sequence(batch_size, length, x.device) if lineage is None else lineage
        lineage, after = lineage.at(state.lengths), []
        for layer, memory in zip(self.layers, state.layers, strict=True):
            x, memory = layer(x, memory, lineage)
            after.append(memory)
        return self.norm(x), State(tuple(after), lineage.end, state.identify)

    def read(self, pieces: Sequence[Tensor], places: Sequence[Place]) -> tuple[Float[Tensor, "B D"], State]:
        """Read vectors (T, D), at least one, after each place: the output after the last of each, and the state."""
        lengths = torch.tensor([len(piece) for piece in pieces])
        x = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
        ragged = bool((lengths < x.shape[1]).any())
        valid = torch.arange(x.shape[1]) < lengths[:, None]
        lineage = Lineage.padded(valid.to(x.device)) if ragged else None
        y, state = self(x, gathered(places), lineage)
        return y[torch.arange(len(pieces)), lengths - 1], state

    def _identify(self) -> str:
        return "the state of a drafter's own layers"
