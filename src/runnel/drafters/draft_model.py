"""Draft model: a smaller model of the same tokens writes ahead, with the noise that the target will use.

Paper: "Fast Inference from Transformers via Speculative Decoding" (2022, 2211.17192), algorithm 1 (the drafting half).

    x_i = argmax_v (log q_i(v) + G_{t+i}(v)),  i = 1..gamma                            (1)

| code | paper |
|---|---|
| max_draft | gamma |
| tree | the chain of guesses; here any tree builder of `runnel.trees`, with paths of at most max_draft |
| config.model | M_q |

Deviates: the paper draws x_i from q freely and accepts with probability min(1, p/q). With the acceptance rule `match`,
x_i is drawn with the target's own noise G, and accepted when the target draws the same token: the text is then the same
for every drafter and every gamma. With `rejection` the noise is fresh, as in the paper.

The draft model rolls back by keeping its old states: after some of its tokens were accepted, it goes on from the state
that had read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from runnel import catalog
from runnel.drafters import Draft, Drafter, Draw
from runnel.model import Model
from runnel.prefill import prefill
from runnel.state import Place, gathered
from runnel.trees import ROOT, Asked, Sketch, TreeBuilder, grow_all

PAPERS = {"Fast Inference from Transformers via Speculative Decoding": "2211.17192"}


@dataclass(frozen=True)
class Config:
    """model: a model of tokens with the target's vocabulary. max_draft >= 1. tree: a builder of `runnel.trees`."""

    model: Model
    max_draft: int = 4
    tree: str | TreeBuilder | Any = "chain"

    def __post_init__(self) -> None:
        if self.max_draft < 1:
            raise ValueError(f"max_draft must be at least 1; got {self.max_draft}")
        if self.model.config.vocab_size is None:
            raise ValueError("a draft model must be a model of tokens; this one is of values")


@dataclass
class Memory:
    """read (a state's row) has read everything but `unread`, at least one token. sketch: the last guess; reached: the
    place that had read each of its nodes, as far as the builder asked; `ROOT` had read all of unread.
    """

    read: Place
    unread: list[int]
    draw: Draw
    sketch: Sketch = field(default_factory=Sketch)
    reached: dict[int, Place] = field(default_factory=dict)


class DraftModel(Drafter):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = config.model
        self.builder: TreeBuilder = catalog.make("trees", TreeBuilder, config.tree)
        self.vocab_size = config.model.config.vocab_size
        self.nothing_read = config.model.init_state(batch_size=1)

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory((self.nothing_read, 0), list(prompt), draw)

    def propose(self, memory: Memory, budget: int) -> Draft:
        return self.propose_all([memory], [budget])[0]

    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        for memory in memories:
            memory.sketch, memory.reached = Sketch(), {}
        sketches, draws = [memory.sketch for memory in memories], [memory.draw for memory in memories]
        depths = [min(budget, self.config.max_draft) for budget in budgets]
        grow_all(self.builder, sketches, draws, depths, lambda asked: self._after(memories, asked))
        return [sketch.draft() for sketch in sketches]

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        memory.unread.extend(tokens)
        node, read = ROOT, 0  # the newest token stays unread
        while node in memory.reached:
            memory.read, memory.unread = memory.reached[node], list(tokens[read:])
            below = [n for n in memory.reached if n != ROOT and memory.sketch.parents[n] == node]
            node = next((n for n in below if memory.sketch.tokens[n] == tokens[read] and read + 1 < len(tokens)), -2)
            read += 1
        memory.sketch, memory.reached = Sketch(), {}

    def _after(self, memories: Sequence[Memory], asked: Asked) -> dict[int, Tensor]:
        """The model's logits after nodes of the rows' sketches, in one call."""
        nodes = [(memories[row], node) for row, own in asked.items() for node in own]
        state = gathered([self._before(memory, node) for memory, node in nodes])
        texts = [memory.unread if node == ROOT else [memory.sketch.tokens[node]] for memory, node in nodes]
        state = prefill(self.model, [text[:-1] for text in texts], state)
        newest = torch.tensor([text[-1:] for text in texts], device=self.model.device)
        logits, state = self.model(newest, state)
        for at, (memory, node) in enumerate(nodes):
            memory.reached[node] = (state, at)
        each = logits[:, -1].double().cpu().split([len(own) for own in asked.values()])
        return dict(zip(asked, each, strict=True))

    def _before(self, memory: Memory, node: int) -> Place:
        return memory.read if node == ROOT else memory.reached[memory.sketch.parents[node]]


@torch.no_grad()
def reference(model: Model, text: Sequence[int], draw: Draw, count: int) -> list[int]:
    """`count` tokens after the text, the whole text read again for each."""
    written: list[int] = []
    for ahead in range(count):
        logits, _ = model(torch.tensor([[*text, *written]]))
        written.append(draw(logits[0, -1].double(), ahead, written))
    return written
