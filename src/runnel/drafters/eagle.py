"""EAGLE: one layer over (feature, token) pairs writes the target's features ahead; with sampled features (FSPAD).

Papers: "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty" (2024, 2401.15077), section 3.1; "Boosting
Lossless Speculative Decoding via Feature Sampling and Partial Alignment Distillation" (2024, 2408.15562), section 3.

    u_t = W [e(x_{t+1}); f_t]                                                                        (EAGLE)
    v_t = u_t + W_3 (SiLU(W_1 e(x_{t+1})) * W_2 n(u_t))                                              (feature sampling)
    y_t = the layer, over v_1..v_t
    (g_t, f'_{t+1}) = (y_t, y_t) + W_4 y_t,   x_{t+2} ~ softmax(head(g_t))                           (partial alignment)

f is the true feature where the text is known, f' where it is guessed.

| code | papers |
|---|---|
| fuse, gate, up, down | W, W_1, W_2, W_3 |
| split | W_4: what the law is read from and what stands for the feature are told apart |
| sampled | False: EAGLE itself, v = u, g = f' = y |
| n, head, e | root-mean-square norm; the target's head and embedding, frozen |

Deviates: `layer` is any pattern of mixers; the papers' is attention. Its output is normalised, as the target's features
are. The second paper widens the layer's own MLP to 2 D; here a projection after it does that.
The layer's state never holds a guess: below the newest token every guess has a state of its own, which is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.draft import Draft, Draw
from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, linear
from runnel.state import Place
from runnel.trained import ChainedConfig
from runnel.trained.pairs import Pairs, PairsMemory
from runnel.trained.stack import Stack
from runnel.trees import ROOT, Asked, Sketch, grow_all

PAPERS = {
    "EAGLE: Speculative Sampling Requires Rethinking Feature Uncertainty": "2401.15077",
    "Boosting Lossless Speculative Decoding via Feature Sampling and Partial Alignment Distillation": "2408.15562",
}
TRAINED = True


@dataclass(frozen=True)
class Config(ChainedConfig):
    """layer: a pattern of `runnel.patterns`. sampled: whether features are sampled (FSPAD)."""

    layer: str = "attention"
    sampled: bool = True


@dataclass
class Memory(PairsMemory):
    """read: the place that has read all pairs but those that are held. reached: the place that has read each node of
    the sketch (`ROOT`: all pairs), with the feature guessed there.
    """

    read: Place | None = None
    sketch: Sketch = field(default_factory=Sketch)
    reached: dict[int, tuple[Place, Tensor]] = field(default_factory=dict)


class Eagle(Pairs):
    config: Config

    def make(self, d_model: int) -> None:
        self.fuse = linear(2 * d_model, d_model)
        self.layer = Stack.build(self.config.layer, d_model)
        if self.config.sampled:
            self.norm = RMSNorm(d_model)
            self.gate, self.up = linear(d_model, 2 * d_model), linear(d_model, 2 * d_model)
            self.down, self.split = linear(2 * d_model, d_model), linear(d_model, 2 * d_model)
            for layer in (self.down, self.split):
                nn.init.zeros_(layer.weight)

    def fused(self, features: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """What the layer reads of pairs."""
        embedded = self.embed(tokens)
        u = self.fuse(torch.cat([embedded, features], dim=-1))
        return u + self.down(silu(self.gate(embedded)) * self.up(self.norm(u))) if self.config.sampled else u

    def parted(self, y: Float[Tensor, "*B D"]) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B D"]]:
        """What the law is read from, and the feature."""
        if not self.config.sampled:
            return y, y
        first, second = self.split(y).chunk(2, dim=-1)
        return y + first, y + second

    def foresee(
        self, features: Float[Tensor, "B T D"], tokens: Int[Tensor, "B T"], lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        return self.parted(self.layer(self.fused(features, tokens), lineage=lineage)[0])

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(list(prompt), draw, read=(self.layer.init_state(1), 0))

    @torch.no_grad()
    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        for memory in memories:
            memory.sketch, memory.reached = Sketch(), {}
        depths = [
            min(budget, self.config.max_draft) if memory.tokens else 0
            for memory, budget in zip(memories, budgets, strict=True)
        ]
        sketches, draws = [memory.sketch for memory in memories], [memory.draw for memory in memories]
        grow_all(self.builder, sketches, draws, depths, lambda asked: self._after(memories, asked))
        return [sketch.draft() for sketch in sketches]

    def _after(self, memories: Sequence[Memory], asked: Asked) -> dict[int, Tensor]:
        """The logits after nodes of the rows' sketches, in one call."""
        nodes = [(memories[row], node) for row, own in asked.items() for node in own]
        pieces, places = [], []
        for memory, node in nodes:
            place, features, tokens = self._before(memory, node)
            pieces.append(self.fused(features, torch.tensor(tokens, device=features.device)))
            places.append(place)
        outputs, state = self.layer.read(pieces, places)
        guessed, features = self.parted(torch.stack([y[-1] for y in outputs]))
        for at, (memory, node) in enumerate(nodes):
            memory.reached[node] = ((state, at), features[at])
            memory.read = (state, at) if node == ROOT else memory.read
        each = self.law(guessed).double().cpu().split([len(own) for own in asked.values()])
        return dict(zip(asked, each, strict=True))

    def _before(self, memory: Memory, node: int) -> tuple[Place, Tensor, list[int]]:
        """From where a node is reached, and the pairs on the way."""
        if node == ROOT:
            assert memory.read is not None
            return memory.read, *memory.taken()
        place, feature = memory.reached[memory.sketch.parents[node]]
        return place, feature[None], [memory.sketch.tokens[node]]


@torch.no_grad()
def reference(drafter: Eagle, features: Float[Tensor, "T D"], tokens: list[int], draw: Draw, count: int) -> list[int]:
    """`count` tokens after the known pairs, every pair read again for each."""
    text = list(tokens)
    for ahead in range(count):
        guessed, following = drafter.foresee(features[None], torch.tensor([text]))
        text.append(draw(drafter.law(guessed[0, -1]).double(), ahead, text[len(tokens) :]))
        features = torch.cat([features, following[0, -1:]])
    return text[len(tokens) :]
