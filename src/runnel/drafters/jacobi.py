"""Jacobi: what the model said of the places ahead in the last round, after guesses then wrong, is this round's draft.

Paper: "Accelerating Auto-regressive Text-to-Image Generation with Training-free Speculative Jacobi Decoding" (2024,
2410.01699), section 3 and algorithm 1.

    x_i ~ p_{j-1}(. | x_{<i} of round j-1)  for the places that round j-1 reached          (1)
    x_i = x_{i-n}                           for the others                                (2)
    accept x_i with probability min(1, p_j(x_i | x_{<i}) / p_{j-1}(x_i | ...)), left to right,
    else draw from max(0, p_j - p_{j-1}), and begin round j + 1 after it                   (3)

Eq. (3) is the acceptance rule `rejection`, as the law of (1) is handed over as the one that x_i was drawn from. The law
of the text is then exactly the model's: the laws of (1) are known before the round begins, and every place is drawn
anew in every round, so that what an earlier round rejected tells nothing. With the rule `match` the draws use the
row's own noise: x_i is what the row would write if p_{j-1} were right, the text is that of plain sampling, and for
greedy decoding this is Jacobi's iteration.

| code | paper |
|---|---|
| window | W, the number of places guessed |
| neighbour | n: 1 repeats the token to the left, a grid's width the one above; 0 draws any token, evenly |
| laws | p_{j-1} after the accepted tokens |

Deviates: a place of (2) is given rather than drawn (but for n = 0), and is accepted with its probability under p_j.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from runnel.drafters import Draft, Drafter, Draw, Seen

PAPERS = {
    "Accelerating Auto-regressive Text-to-Image Generation with Training-free Speculative Jacobi Decoding": "2410.01699"
}


@dataclass(frozen=True)
class Config:
    """window >= 1; neighbour >= 0."""

    window: int = 8
    neighbour: int = 1

    def __post_init__(self) -> None:
        for name, value, least in (("window", self.window, 1), ("neighbour", self.neighbour, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")


@dataclass
class Memory:
    """laws: the model's logits (V,) for the next places, as far as the last round went. even: those of the even law,
    once it is known how many tokens there are.
    """

    text: list[int]
    draw: Draw
    laws: list[Tensor] = field(default_factory=list)
    even: Tensor | None = None


class Jacobi(Drafter):
    config: Config
    looks_back = True

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        return Memory(list(prompt), draw)

    def propose(self, memory: Memory, budget: int) -> Draft:
        count = min(budget, self.config.window)
        laws = memory.laws[:count]
        if self.config.neighbour == 0 and memory.even is not None:
            laws = laws + [memory.even] * (count - len(laws))
        tokens = memory.draw.along(torch.stack(laws)) if laws else []
        while len(tokens) < count:
            tokens.append(self._beside(memory.text, tokens))
        return Draft.chain(tokens)._replace(logits=[*laws, *[None] * (count - len(laws))])

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        memory.text.extend(tokens)

    def look_back(self, memory: Memory, seen: Seen) -> None:
        node, ahead = seen.path[-1], []
        for child in range(node + 1, len(seen.tokens)):
            if seen.parents[child] == node:
                ahead.append(child)
                node = child
        memory.laws = list(seen.logits[ahead])
        if memory.even is None:
            memory.even = torch.zeros_like(seen.logits[0])

    def _beside(self, text: Sequence[int], tokens: Sequence[int]) -> int:
        """Eq. (2); the beginning of the text where there is no such neighbour."""
        place = max(0, len(text) + len(tokens) - max(1, self.config.neighbour))
        return text[place] if place < len(text) else tokens[place - len(text)]


Tokens = tuple[int, ...]
Law = Sequence[float]


def reference(
    law: Callable[[Tokens], Law], text: Tokens, length: int, window: int, guessed: Sequence[Law] = ()
) -> dict[Tokens, float]:
    """The probability of every text of `length` tokens that eq. (1) to (3) write, by summing over all drafts and all
    outcomes of every round. guessed: p_{j-1}; places without one repeat the token to the left.
    """
    if length == 0:
        return {(): 1.0}
    written: dict[Tokens, float] = {}
    count = min(window, length - 1)
    laws = list(guessed[:count])
    for drawn in product(*[range(len(q)) for q in laws]):
        draft = drawn + ((text + drawn)[-1],) * (count - len(drawn))
        taken = laws + [[float(token == given) for token in range(len(law(text)))] for given in draft[len(laws) :]]
        now = [law(text + draft[:place]) for place in range(count + 1)]
        chance = math.prod(q[token] for q, token in zip(laws, drawn, strict=True))
        for place in range(count + 1):
            kept, rest = 0.0, list(now[place])  # where no token was drafted
            if place < count:
                kept = min(1.0, now[place][draft[place]] / taken[place][draft[place]])
                rest = [max(0.0, p - q) for p, q in zip(now[place], taken[place], strict=True)]
            for token, r in enumerate(rest):
                if chance * (1 - kept) * r > 0:
                    end = (*draft[:place], token)
                    for more, p in reference(law, text + end, length - len(end), window, now[place + 1 :]).items():
                        written[end + more] = written.get(end + more, 0.0) + chance * (1 - kept) * r / sum(rest) * p
            chance *= kept
    return written
