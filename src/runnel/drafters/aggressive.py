"""Aggressive: the rest of the source, copied; for text that repeats a source with small changes (corrections, edits).

Paper: "Lossless Acceleration for Seq2seq Generation with Aggressive Decoding" (2022, 2205.10350), section 3
(input-guided aggressive decoding).

    o: the text written so far, x: the source; while o follows x, at place j:
    draft = x_{j+1}, ..., x_{j+k}                                                      (1)
    once o has left x: for n = 1, 2, ...: if o_{t-n+1..t} occurs in x at one place only, ending at j, go on
    after j; if it occurs nowhere, draft nothing; else try the next n                  (2)

| code | paper |
|---|---|
| source, cursor | x, j |
| max_draft | k, all of x that is left in the paper |

Deviates: an autoregressive model reads its source in the prompt, so that the draft is verified like any other; the
drafter is told the source, or where it stands in the prompt. The generalised form of the paper, which drafts with a
non-autoregressive model, is not this page: any drafter that is a model will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runnel.drafters import Draft, Drafter, Draw

PAPERS = {"Lossless Acceleration for Seq2seq Generation with Aggressive Decoding": "2205.10350"}


@dataclass(frozen=True)
class Config:
    """source: the source of all rows, or what gives that of a row from its prompt. separator: where no source is given,
    it is the part of the prompt after the last of these tokens, or before it where the prompt ends with one (and after
    the one before). Without both the whole prompt is the source. max_draft >= 1.
    """

    source: Sequence[int] | Callable[[Sequence[int]], Sequence[int]] | None = None
    separator: int | None = None
    max_draft: int = 16

    def __post_init__(self) -> None:
        if self.max_draft < 1:
            raise ValueError(f"max_draft must be at least 1; got {self.max_draft}")
        if self.source is not None and self.separator is not None:
            raise ValueError("give the source or a separator before it, not both")

    def source_of(self, prompt: Sequence[int]) -> list[int]:
        if callable(self.source):
            return list(self.source(prompt))
        if self.source is not None:
            return list(self.source)
        return after_last(prompt, self.separator)


def after_last(prompt: Sequence[int], separator: int | None) -> list[int]:
    """What of the prompt stands after its last separator, one at its very end left away; all of it without any."""
    end = len(prompt) - (prompt[-1] == separator)
    start = next((at for at in range(end, 0, -1) if prompt[at - 1] == separator), 0)
    return list(prompt[start:end])


@dataclass
class Memory:
    """cursor: how much of the source stands before what is expected next; None when the text has left it. ends: for
    each token, the places right after it in the source.
    """

    source: list[int]
    ends: dict[int, list[int]]
    written: list[int] = field(default_factory=list)
    cursor: int | None = 0


class Aggressive(Drafter):
    config: Config

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        source = self.config.source_of(prompt)
        ends: dict[int, list[int]] = {}
        for at, token in enumerate(source):
            ends.setdefault(token, []).append(at + 1)
        return Memory(source, ends)

    def propose(self, memory: Memory, budget: int) -> Draft:
        if memory.cursor is None:
            return Draft([], [])
        end = memory.cursor + min(budget, self.config.max_draft)
        return Draft.chain(memory.source[memory.cursor : end])  # eq. (1)

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.written.append(token)
            cursor, source = memory.cursor, memory.source
            if cursor is not None and cursor < len(source) and source[cursor] == token:
                memory.cursor = cursor + 1
            else:
                memory.cursor = _found(memory)


def _found(memory: Memory) -> int | None:
    """Eq. (2)."""
    source, written = memory.source, memory.written
    ends, size = memory.ends.get(written[-1], []), 1
    while len(ends) > 1 and size < len(written):
        size += 1
        ends = [end for end in ends if end >= size and source[end - size] == written[-size]]
    return ends[0] if len(ends) == 1 else None


def reference(source: Sequence[int], written: Sequence[int]) -> int | None:
    """The cursor after a text, by following it from its beginning and looking for every suffix at every place."""
    cursor: int | None = 0
    for count in range(1, len(written) + 1):
        if cursor is not None and list(source[cursor : cursor + 1]) == [written[count - 1]]:
            cursor += 1
            continue
        cursor = None
        for size in range(1, count + 1):
            suffix = list(written[count - size : count])
            ends = [end for end in range(size, len(source) + 1) if list(source[end - size : end]) == suffix]
            if len(ends) == 1:
                cursor = ends[0]
            if len(ends) <= 1:
                break
    return cursor
