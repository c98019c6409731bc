"""Draft model: a smaller model of the same tokens writes ahead, with the noise that the target will use.

Paper: "Fast Inference from Transformers via Speculative Decoding" (2022, 2211.17192), algorithm 1 (the drafting half).

    x_i = argmax_v (log q_i(v) + G_{t+i}(v)),  i = 1..gamma                            (1)

| code | paper |
|---|---|
| max_draft | gamma |
| config.model | M_q |

Deviates: the paper draws x_i from q freely and accepts with probability min(1, p/q). Here x_i is drawn with the
target's own noise G, and accepted when the target draws the same token: the text is then the same for every drafter and
every gamma.

The draft model rolls back by keeping its old states: after a of its tokens were accepted, it goes on from the state
that had read a of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runnel.drafters import Draft, Drafter, Draw
from runnel.model import Model
from runnel.prefill import prefill
from runnel.state import State

PAPERS = {"Fast Inference from Transformers via Speculative Decoding": "2211.17192"}


@dataclass(frozen=True)
class Config:
    """model: a model of tokens with the target's vocabulary. max_draft >= 1."""

    model: Model
    max_draft: int = 4

    def __post_init__(self) -> None:
        if self.max_draft < 1:
            raise ValueError(f"max_draft must be at least 1; got {self.max_draft}")
        if self.model.config.vocab_size is None:
            raise ValueError("a draft model must be a model of tokens; this one is of values")


@dataclass
class Memory:
    """state (one row) has read everything but `unread`, at least one token.

    drafted: the last guess. trail: states of the batch, trail[i] having read `unread` and i tokens of the guess; row:
    ours.
    """

    state: State
    unread: list[int]
    draw: Draw
    drafted: list[int] = field(default_factory=list)
    trail: list[State] = field(default_factory=list)
    row: int = 0


class DraftModel(Drafter):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.model = config.model
        self.vocab_size = config.model.config.vocab_size
        self.nothing_read = config.model.init_state(batch_size=1)

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(self.nothing_read, list(prompt), draw)

    def propose(self, memory: Memory, budget: int) -> Draft:
        return self.propose_all([memory], [budget])[0]

    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        counts = [min(budget, self.config.max_draft) for budget in budgets]
        active = [(memory, count) for memory, count in zip(memories, counts, strict=True) if count > 0]
        if active:
            self._write([memory for memory, _ in active], max(count for _, count in active))
        return [
            Draft.chain(memory.drafted[:count]) if count > 0 else Draft([], [])
            for memory, count in zip(memories, counts, strict=True)
        ]

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        if not memory.trail:
            memory.unread.extend(tokens)
            return
        read = 0  # tokens that the trail has read and the newest state may keep; the newest token stays unread
        while read < min(len(memory.trail), len(tokens)) - 1 and memory.drafted[read] == tokens[read]:
            read += 1
        memory.state, memory.unread = memory.trail[read].fork([memory.row]), list(tokens[read:])
        memory.drafted, memory.trail = [], []

    def _write(self, memories: Sequence[Memory], count: int) -> None:
        """Write `count` tokens after each row, all rows at once, keeping every state on the way."""
        state = State.cat([memory.state for memory in memories])
        state = prefill(self.model, [memory.unread[:-1] for memory in memories], state)
        newest, trail = [memory.unread[-1] for memory in memories], []
        drafted: list[list[int]] = []
        for ahead in range(count):
            logits, state = self.model(torch.tensor(newest, device=self.model.device)[:, None], state)
            paths = [[step[row] for step in drafted] for row in range(len(memories))]
            newest = [  # eq. (1)
                memory.draw(row, ahead, path) for memory, row, path in zip(memories, _wide(logits), paths, strict=True)
            ]
            drafted.append(newest)
            trail.append(state)
        for row, memory in enumerate(memories):
            memory.drafted, memory.trail, memory.row = [step[row] for step in drafted], trail, row


def _wide(logits: Tensor) -> Tensor:
    return logits[:, -1].double().cpu()


def reference(model: Model, text: Sequence[int], draw: Draw, count: int) -> list[int]:
    """`count` tokens after the text, the whole text read again for each."""
    written: list[int] = []
    for ahead in range(count):
        logits, _ = model(torch.tensor([[*text, *written]]))
        written.append(draw(_wide(logits)[0], ahead, written))
    return written
