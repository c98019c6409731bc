"""Auto: for whoever does not want to choose: copies, of which it knows how often such copies were right in this text.

Paper: "Inference with Reference: Lossless Acceleration of Large Language Models" (2023, 2304.04487), section 3, for the
copies; how much of them is verified, if anything, is up to `policies/goodput`.

    at    = at + 1 when y_t was the copy's next token, else where the newest min_match tokens stood before (1)
    size  = how many tokens before `at` are the newest ones                                                (2)
    c(l)  = how often the next token of a copy of about size l was right                                   (3)
    draft = y_at, y_{at+1}, ...,  right with the chances c(size), c(size + 1), ...                         (4)

(3) counts every token of the prompt and of what was written, whether it was drafted or not, so that it is known that a
kind of copy does not pay before a call of the model was spent on it: plain text costs two microseconds a token and no
guesses. Guesses from elsewhere (`token_recycling`, `adaptive`) are right more often on text that does not repeat, but
their trees cost more on a CPU than they gain; give them by name where that is otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runnel.drafters import Draft, Drafter, Draw, copied

PAPERS = {"Inference with Reference: Lossless Acceleration of Large Language Models": "2304.04487"}
LONGEST = 32
"""Tokens that a match is told to be long at most, where it is found."""
LEAST = 0.05
"""A guess that is right less often is not looked at."""
REMEMBERED = 64
"""Copies of a kind from which on older ones count half."""
GIVEN = 4
"""Copies of a kind that a prompt counts for, at most: what is written need not repeat itself as it does."""


@dataclass(frozen=True)
class Config:
    """min_match, max_draft >= 1."""

    min_match: int = 3
    max_draft: int = 24

    def __post_init__(self) -> None:
        for name in ("min_match", "max_draft"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}")


KINDS = [size.bit_length() for size in range(LONGEST + 1)]
"""The kind of a copy by its size: sizes 1, 2 to 3, 4 to 7, ..., from 32 on."""


@dataclass
class Memory:
    """text: all tokens. last: where a run of min_match tokens ended when it was last seen. at, size: eq. (1) and (2);
    size 0 where nothing is copied. right, tried: eq. (3) by kind; at first as if some copies had been seen.
    """

    text: list[int] = field(default_factory=list)
    last: dict[tuple[int, ...], int] = field(default_factory=dict)
    at: int = 0
    size: int = 0
    right: list[float] = field(default_factory=lambda: [2 * 2**kind / (2**kind + 8) for kind in range(KINDS[-1] + 1)])
    tried: list[float] = field(default_factory=lambda: [2.0] * (KINDS[-1] + 1))

    def chances(self, count: int) -> list[float]:
        """c of eq. (4) for `count` guesses, or fewer, as long as they are likely at all to be right."""
        chances, reach = list[float](), 1.0
        for size in range(self.size, self.size + count):
            kind = KINDS[min(size, LONGEST)]
            chances.append(self.right[kind] / self.tried[kind])
            reach *= chances[-1]
            if reach < LEAST:
                break
        return chances

    def append(self, token: int, min_match: int) -> None:
        hit = self.size > 0 and self.text[self.at] == token
        if self.size:
            self._count(KINDS[min(self.size, LONGEST)], hit)
        self.text.append(token)
        run = tuple(self.text[-min_match:])
        if hit:
            self.at, self.size = self.at + 1, self.size + 1
        else:
            self.at = self.last.get(run, 0)
            self.size = self._alike() if self.at else 0
        if len(run) == min_match:
            self.last[run] = len(self.text)

    def _count(self, kind: int, hit: bool) -> None:
        self.tried[kind] += 1
        self.right[kind] += hit
        if self.tried[kind] >= REMEMBERED:
            self.forget(kind, REMEMBERED / 2)

    def forget(self, kind: int, most: float) -> None:
        """Let what was seen of a kind count for no more than so many copies."""
        counts = min(1.0, most / self.tried[kind])
        self.tried[kind] *= counts
        self.right[kind] *= counts

    def _alike(self) -> int:
        """How many tokens before `at` are the newest ones, up to LONGEST."""
        text, size, most = self.text, 0, min(self.at, LONGEST)
        while size < most and text[self.at - 1 - size] == text[-1 - size]:
            size += 1
        return size


class Auto(Drafter):
    config: Config
    policy = "goodput"

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        memory = Memory()
        self.advance(memory, prompt)
        for kind in range(len(memory.tried)):
            memory.forget(kind, GIVEN)
        return memory

    def propose(self, memory: Memory, budget: int) -> Draft:
        """Eq. (4)."""
        if not memory.size:
            return Draft([], [])
        chances = memory.chances(min(budget, self.config.max_draft))
        return Draft.chain(copied(memory.text, memory.at, len(chances)), chances=chances)

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.append(token, self.config.min_match)


def reference(text: Sequence[int], min_match: int) -> tuple[int, int, list[tuple[int, bool]]]:
    """Eq. (1) to (3), by looking for every run from the start: at, size (0 where nothing is copied), and for every
    token that was copied the size of the copy and whether it was right.
    """
    at, size, seen = 0, 0, list[tuple[int, bool]]()
    for end in range(1, len(text) + 1):
        if size:
            seen.append((size, text[at] == text[end - 1]))
        if size and seen[-1][1]:
            at, size = at + 1, size + 1
            continue
        run = list(text[max(0, end - min_match) : end])
        ends = [e for e in range(min_match, end) if list(text[e - min_match : e]) == run]
        at, size = (ends[-1], 0) if ends else (0, 0)
        while at and size < min(at, LONGEST) and text[at - 1 - size] == text[end - 1 - size]:
            size += 1
    return at, size, seen
