"""Auto-correct: behind mask tokens the target itself guesses what comes next, in the call that checks its last guesses.

Paper: "Generation Meets Verification: Accelerating Large Language Model Inference with Smart Parallel Auto-Correct
Decoding" (2024, 2402.11809), section 3.2. The target must have learnt to read masks: see the objective `auto_correct`.

    tree: the candidates c_1..c_k in a chain, and below the newest token and below each of them k masks      (1)
    the nodes of candidates say which of them are accepted, and what follows the last one, y                 (2)
    the i-th mask below the last accepted node says what follows y, i places after it: the next c_i          (3)

| code | paper |
|---|---|
| max_draft | k, the number of masks of a group and of candidates |
| mask | [M] |

It is no acceptance rule: any rule of `runnel.acceptance` may judge the candidates. c_i is drawn from what its mask said
(the paper takes the likeliest, which is the draw of a greedy row), so that rules with a law of drafts can use it.
The masks have no place in the text. But the model may write the mask token like any other, and then it is accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from runnel.drafters import Draft, Drafter, Draw, Seen

PAPERS = {
    "Generation Meets Verification: Accelerating Large Language Model Inference with Smart Parallel Auto-Correct "
    "Decoding": "2402.11809"
}


@dataclass(frozen=True)
class Config:
    """mask >= 0: the token that stands for one that is not yet known. max_draft >= 0."""

    mask: int
    max_draft: int = 3

    def __post_init__(self) -> None:
        for name, value in (("mask", self.mask), ("max_draft", self.max_draft)):
            if value < 0:
                raise ValueError(f"{name} must be at least 0; got {value}")


@dataclass
class Memory:
    """guesses: what the masks said of the places after the newest token (each (V,))."""

    draw: Draw
    guesses: list[Tensor] = field(default_factory=list)


class AutoCorrect(Drafter):
    config: Config
    looks_back = True

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(draw)

    def propose(self, memory: Memory, budget: int) -> Draft:
        tokens, laws = list[int](), list[Tensor | None](memory.guesses[:budget])
        for ahead, logits in enumerate(memory.guesses[:budget]):
            tokens.append(memory.draw(logits, ahead, tokens))
        parents = list(range(-1, len(tokens) - 1))
        for above in range(-1, len(tokens)):  # eq. (1)
            first = len(parents)
            parents += [above, *range(first, first + self.config.max_draft - 1)][: self.config.max_draft]
        masks = len(parents) - len(tokens)
        return Draft(tokens + [self.config.mask] * masks, parents, laws + [None] * masks)

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        return

    def look_back(self, memory: Memory, seen: Seen) -> None:
        memory.guesses, node = [], seen.path[-1]
        while (mask := max((child for child, above in enumerate(seen.parents) if above == node), default=0)) > 0:
            memory.guesses.append(seen.logits[mask])  # eq. (3): masks are hung last
            node = mask


def reference(candidates: int, max_draft: int) -> list[tuple[int, int]]:
    """Eq. (1) as paths: (candidates, masks) before and at every node."""
    chain = [(i, 0) for i in range(1, candidates + 1)]
    return chain + [(i, j) for i in range(candidates + 1) for j in range(1, max_draft + 1)]
