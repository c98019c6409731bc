"""Automaton: what is written must be accepted by a deterministic finite automaton, over tokens or over bytes.

Paper: "Efficient Guided Generation for Large Language Models" (2023, 2307.09702), section 3 (algorithm 4, the index).

    sigma(q) = {v : the automaton, from state q, reads v and can still accept}         (1)
    l'_v = -inf  unless v is in sigma(q_t), or v ends the text and q_t accepts         (2)
    q_{t+1} = delta(q_t, y_t)                                                          (3)

| code | paper |
|---|---|
| edges, start, accepting | delta, q_0, F |
| allowed | sigma |

With a codec the symbols are bytes, and a token is read byte by byte: any tokens that spell an accepted text may be
written. Without one the symbols are tokens. sigma of a state is made when the state is first reached, and kept.
Deviates: states from which nothing can be accepted are left out of (1), so that no text runs into a dead end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.codecs import Codec
from runnel.processors import Constraint, check_codec

PAPERS = {"Efficient Guided Generation for Large Language Models": "2307.09702"}


@dataclass(frozen=True)
class Config:
    """edges: for every state 0, 1, ... the state that each symbol leads to. accepting: the states where a text may end.

    codec: of the tokens, when the symbols are bytes.
    """

    edges: Sequence[Mapping[int, int]]
    accepting: Collection[int]
    start: int = 0
    codec: Codec | None = None

    def __post_init__(self) -> None:
        for state in [self.start, *self.accepting, *(to for own in self.edges for to in own.values())]:
            if not 0 <= state < len(self.edges):
                raise ValueError(f"states of automaton must lie in [0, {len(self.edges)}); got {state}")
        symbols = {symbol for own in self.edges for symbol in own}
        if self.codec is not None and not symbols <= set(range(256)):
            raise ValueError(f"symbols of automaton must be bytes beside a codec; got {max(symbols, key=abs)}")


class Automaton(Constraint):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.live = _live(config)
        if config.start not in self.live:
            raise ValueError("automaton accepts no text: no accepting state can be reached")
        self._allowed: dict[int, Tensor] = {}

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        super().check(vocab_size, stops, limit)
        if self.config.codec is not None:
            check_codec(self.name, self.config.codec, vocab_size)
            return
        for symbol in sorted({symbol for own in self.config.edges for symbol in own}):
            if not 0 <= symbol < vocab_size or symbol in stops:
                raise ValueError(f"symbols of automaton must be tokens in [0, {vocab_size}), no eos; got {symbol}")

    def begin(self) -> int:
        return self.config.start

    def follow(self, memory: int, token: int) -> int | None:
        codec = self.config.codec
        symbols = [token] if codec is None else codec.token_bytes[token]
        state: int | None = memory if symbols else None  # a token of no bytes would go on for ever
        for symbol in symbols:
            state = None if state is None else self.config.edges[state].get(symbol)  # eq. (3)
        return state if state in self.live else None

    def allowed(self, memory: int, vocab_size: int) -> Tensor:
        if memory not in self._allowed:
            self._allowed[memory] = self._indexed(memory, vocab_size)
        return self._allowed[memory].clone()

    def accepts(self, memory: int) -> bool:
        return memory in self.config.accepting

    def _indexed(self, state: int, vocab_size: int) -> Tensor:
        """Eq. (1)."""
        tokens = self.config.edges[state] if self.config.codec is None else range(vocab_size)
        followed = [token for token in tokens if self.follow(state, token) is not None]
        return torch.zeros(vocab_size, dtype=torch.bool).index_fill_(0, torch.tensor(followed, dtype=torch.long), True)


def _live(config: Config) -> frozenset[int]:
    """The states from which an accepting one can be reached."""
    into: dict[int, set[int]] = {}
    for state, own in enumerate(config.edges):
        for to in own.values():
            into.setdefault(to, set()).add(state)
    live, found = set[int](), set(config.accepting)
    while found:
        live |= found
        found = {before for state in found for before in into.get(state, ())} - live
    return frozenset(live)


def reference(symbols: Sequence[int], config: Config) -> bool:
    """Whether the automaton accepts a text, symbol by symbol."""
    state: int | None = config.start
    for symbol in symbols:
        state = None if state is None else config.edges[state].get(symbol)
    return state in config.accepting
