"""Falcon: a semi-autoregressive drafter, which writes a block of k features and tokens in one pass.

Paper: "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced Semi-Autoregressive Drafting and
Custom-Designed Decoding Tree" (2024, 2412.12639), sections 3.1 and 3.3; the objective is `falcon`.

    v_i = LSTM([e(x_{i+1}); f_i])                                                                    (1)
    f'_{i+k} = the layer at v_i, which sees v_j for all j of its own block and of those before it    (2)
    x_{i+k+1} ~ softmax(head(f'_{i+k}))

The last k known pairs give the next k laws at once; their features and tokens are the next block.

| code | paper |
|---|---|
| block | k |
| recurrence, layer | the LSTM; the layer with the relaxed causal mask (`runnel.trained.relaxed`) |

A law k ahead does not know the tokens between: in a tree, all nodes of a block that hang from one node share one pass.
Deviates: it looks at the last `window` pairs, read anew in every pass, and blocks are counted from the newest pair; the
paper keeps keys and values of the whole text, made with other block borders. One LSTM layer by default, not two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.draft import Draft, Draw
from runnel.lineage import Lineage
from runnel.trained import ChainedConfig
from runnel.trained.pairs import Pairs, PairsMemory
from runnel.trained.relaxed import RelaxedLayer
from runnel.trees import Asked, Sketch, grow_all

PAPERS = {
    "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced Semi-Autoregressive Drafting and "
    "Custom-Designed Decoding Tree": "2412.12639"
}
TRAINED = True


@dataclass(frozen=True)
class Config(ChainedConfig):
    """block >= 1; window >= block: pairs that are looked at; recurrences >= 1: layers of the LSTM."""

    block: int = 2
    window: int = 32
    recurrences: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("block", 1), ("window", self.block), ("recurrences", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")


@dataclass
class Memory(PairsMemory):
    """seen, heard: features and tokens of the window. blocks: by the tokens guessed before a block, its laws (k, V) and
    features (k, D).
    """

    seen: Tensor | None = None
    heard: list[int] = field(default_factory=list)
    blocks: dict[tuple[int, ...], tuple[Tensor, Tensor]] = field(default_factory=dict)


class Falcon(Pairs):
    config: Config

    def make(self, d_model: int) -> None:
        self.recurrence = nn.LSTM(2 * d_model, d_model, self.config.recurrences, batch_first=True)
        self.layer = RelaxedLayer(d_model, self.config.block)

    @property
    def ahead(self) -> int:
        return self.config.block

    @property
    def window(self) -> int:
        return self.config.window

    def foresee(
        self, features: Float[Tensor, "B T D"], tokens: Int[Tensor, "B T"], lineage: Lineage | None = None
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T D"]]:
        """Of windows, whose last blocks are whole; a window is one document, or taken for one."""
        x, _ = self.recurrence(torch.cat([self.embed(tokens), features], dim=-1))  # eq. (1)
        y = self.layer(x)  # eq. (2)
        return y, y

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(list(prompt), draw)

    @torch.no_grad()
    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        depths = []
        for memory, budget in zip(memories, budgets, strict=True):
            self._look(memory)
            depths.append(min(budget, self.config.max_draft) if len(memory.heard) >= self.config.block else 0)
        sketches, draws = [Sketch() for _ in memories], [memory.draw for memory in memories]
        grow_all(self.builder, sketches, draws, depths, lambda asked: self._after(memories, sketches, asked))
        return [sketch.draft() for sketch in sketches]

    def _look(self, memory: Memory) -> None:
        """Move the window on."""
        memory.blocks = {}
        if memory.tokens:
            features, tokens = memory.taken()
            most = self.config.window
            memory.seen = (features if memory.seen is None else torch.cat([memory.seen, features]))[-most:]
            memory.heard = [*memory.heard, *tokens][-most:]

    def _after(self, memories: Sequence[Memory], sketches: Sequence[Sketch], asked: Asked) -> dict[int, Tensor]:
        found = {}
        for row, nodes in asked.items():
            paths = [tuple(sketches[row].path(node)) for node in nodes]
            found[row] = torch.stack(
                [self._block(memories[row], path)[len(path) % self.config.block] for path in paths]
            )
        return found

    def _block(self, memory: Memory, path: tuple[int, ...]) -> Tensor:
        """The laws of the block that a path ends in; written when it is first asked for."""
        block, path = self.config.block, path[: len(path) // self.config.block * self.config.block]
        if path not in memory.blocks:
            assert memory.seen is not None
            guessed = [memory.blocks[path[:first]][1] for first in range(0, len(path), block)]
            tokens = [*memory.heard, *path]
            size = min(len(tokens), self.config.window) // block * block
            features = torch.cat([memory.seen, *guessed])[-size:]
            y = self.foresee(features[None], torch.tensor([tokens[-size:]], device=features.device))[0][0, -block:]
            memory.blocks[path] = (self.law(y).double().cpu(), y)
        return memory.blocks[path][0]


@torch.no_grad()
def reference(drafter: Falcon, features: Float[Tensor, "T D"], tokens: list[int], draw: Draw, count: int) -> list[int]:
    """`count` tokens in chain after the known pairs, block by block."""
    block, text = drafter.config.block, list(tokens)
    while len(text) < len(tokens) + count:
        size = min(len(text), drafter.config.window) // block * block
        y = drafter.foresee(features[None, -size:], torch.tensor([text[-size:]]))[0][0, -block:]
        for law in drafter.law(y).double():
            text.append(draw(law, len(text) - len(tokens), text[len(tokens) :]))
        features = torch.cat([features, y])
    return text[len(tokens) :][:count]
