"""Corpus: what followed the longest match in a corpus or in the text, copied; where none is long, another drafter.

Paper: "SAM Decoding: Speculative Decoding via Suffix Automaton" (2024, 2411.10666), sections 3.2 to 3.4.

    l_d, e_d: length and first end of the longest suffix of y_1..y_t that occurred before in y_1..y_{t-1}    (1)
    l_s, e_s: length and first end of the longest suffix of y_1..y_t that occurs in the corpus               (2)
    source = the text if l_d >= l_s - bias, else the corpus                                                  (3)
    draft  = what stands after e in the source if its l >= min_match, else another drafter's                 (4)

with l_s - bias for l in (4) when the corpus is the source. Both matches cost O(1) a token, amortised
(`runnel.ops.suffix_automaton`). The corpus is read once, by all rows; its automaton takes some 500 bytes a token.

| code | paper |
|---|---|
| texts, files | the text corpus of the static automaton |
| bias | l_bias |
| min_match | l_threshold |
| max_draft | n_predicts |
| otherwise | the auxiliary method (Token Recycling, EAGLE-2) |

Deviates: a copy from the text that reaches its end goes on with itself; a copy from the corpus ends with its document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from runnel import catalog
from runnel.codecs import Codec
from runnel.drafters import Draft, Drafter, Draw, Seen, copied
from runnel.ops import suffix_automaton
from runnel.ops.suffix_automaton import Match, RepeatingText, SuffixAutomaton
from runnel.state import Place

PAPERS = {"SAM Decoding: Speculative Decoding via Suffix Automaton": "2411.10666"}
BORDER = -1
"""Stands after every document of the corpus; no text holds it, so that no match goes across."""


@dataclass(frozen=True)
class Config:
    """texts: documents as tokens. files: documents to be read by the codec. bias >= 0; min_match, max_draft >= 1.
    otherwise: a drafter by name, Config or as it is.
    """

    texts: Sequence[Sequence[int]] = ()
    files: Sequence[str | Path] = ()
    codec: Codec | None = None
    bias: int = 5
    min_match: int = 5
    max_draft: int = 16
    otherwise: str | Drafter | Any = "token_recycling"

    def __post_init__(self) -> None:
        for name, least in (("bias", 0), ("min_match", 1), ("max_draft", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if self.files and self.codec is None:
            raise ValueError("the files of a corpus are read by a codec: give the codec too")
        for file in self.files:
            if not Path(file).is_file():
                raise ValueError(f"the files of a corpus must be there; got {str(file)!r}")

    def documents(self) -> list[list[int]]:
        read = [] if self.codec is None else self.codec.encode_batch([Path(file).read_bytes() for file in self.files])
        return [*map(list, self.texts), *read]


@dataclass
class Memory:
    """text: what was written, with eq. (1). found: eq. (2). other: what the other drafter remembers."""

    text: RepeatingText
    found: Match
    other: Any


class Corpus(Drafter):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.corpus = SuffixAutomaton([token for text in config.documents() for token in (*text, BORDER)])
        self.other: Drafter = catalog.make("drafters", Drafter, config.otherwise)
        self.vocab_size = self.other.vocab_size
        self.reads_hidden, self.looks_back = self.other.reads_hidden, self.other.looks_back

    def begin(self, prompt: Sequence[int], draw: Draw) -> Memory:
        memory = Memory(RepeatingText(), (0, 0), self.other.begin(prompt, draw))
        self._note(memory, prompt)
        return memory

    def read(self, memory: Memory, hidden: Tensor) -> None:
        self.other.read(memory.other, hidden)

    def propose(self, memory: Memory, budget: int) -> Draft:
        return self.propose_all([memory], [budget])[0]

    def propose_all(self, memories: Sequence[Memory], budgets: Sequence[int]) -> list[Draft]:
        copies = [self._copy(memory, budget) for memory, budget in zip(memories, budgets, strict=True)]
        left = [0 if copy.tokens else budget for copy, budget in zip(copies, budgets, strict=True)]
        others = self.other.propose_all([memory.other for memory in memories], left)
        return [copy if copy.tokens else other for copy, other in zip(copies, others, strict=True)]

    def advance(self, memory: Memory, tokens: Sequence[int]) -> None:
        self._note(memory, tokens)
        self.other.advance(memory.other, tokens)

    def look_back(self, memory: Memory, seen: Seen) -> None:
        self.other.look_back(memory.other, seen)

    def stand(self, memory: Memory, place: Place) -> None:
        self.other.stand(memory.other, place)

    def _note(self, memory: Memory, tokens: Sequence[int]) -> None:
        for token in tokens:
            memory.text.append(token)
            memory.found = self.corpus.follow(memory.found, token)

    def _copy(self, memory: Memory, budget: int) -> Draft:
        """Eq. (3) and (4): at most `budget` tokens, none when the match is too short."""
        count, least = min(budget, self.config.max_draft), self.config.min_match
        in_text, in_corpus = memory.text.match, memory.found
        sure = in_corpus[1] - self.config.bias
        if max(in_text[1], sure) < least:
            return Draft([], [])
        if in_text[1] >= sure:
            return Draft.chain(copied(memory.text.text, memory.text.end(in_text), count), trust=in_text[1])
        copy = self.corpus.text[(start := self.corpus.end(in_corpus)) : start + count]
        return Draft.chain(copy[: copy.index(BORDER)] if BORDER in copy else copy, trust=in_corpus[1])


def reference(documents: Sequence[Sequence[int]], text: Sequence[int], config: Config) -> tuple[str, int, int]:
    """Eq. (1) to (4) by trying every suffix at every place: the source ("text", "corpus" or "other"), the document and
    the place in it.
    """
    in_text, end = suffix_automaton.reference(text[:-1], text)
    found = [suffix_automaton.reference(document, text) for document in documents]
    in_corpus = max((length for length, _ in found), default=0)
    if in_text >= in_corpus - config.bias:
        return ("text", 0, end) if in_text >= config.min_match else ("other", 0, 0)
    if in_corpus - config.bias < config.min_match:
        return ("other", 0, 0)
    document = next(at for at, (length, _) in enumerate(found) if length == in_corpus)
    return ("corpus", document, found[document][1])
