"""Decoders: how the next token is picked from logits, one algorithm a file.

A page defines a frozen `Config`, a `Decoder`, `LOSSLESS` (whether its text is the same whatever the drafter) and
`PAPERS`. The loop that drafts, verifies and commits is `runnel.decode_loop`; a decoder sees logits, never an
architecture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from runnel.processors import Text


class Decoder(ABC):
    """A rule that picks tokens. It must be a function of its arguments: that is what makes any drafter lossless.

    reads_text: its scores depend on the text; else texts may be left out. remembers: `remember` is to be called.
    """

    reads_text, remembers = True, False

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def law(self, logits: Tensor, texts: Sequence[Text] = ()) -> Tensor:
        """logits (N, V) float64 on the CPU -> log-probabilities (N, V) of what may be picked after texts[n]."""

    @abstractmethod
    def scores(
        self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int], texts: Sequence[Text] = ()
    ) -> Tensor:
        """Scores (N, V) whose largest is picked. Token n will stand at positions[n] of a row whose seed is seeds[n].

        The pick is a draw from `law`; the k largest are k draws without replacement, as far as the law has so many.
        """

    def pick(
        self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int], texts: Sequence[Text] = ()
    ) -> list[int]:
        """N tokens; ties go to the lower one."""
        return self.scores(logits, seeds, positions, texts).argmax(-1).tolist()

    def remember(self, text: Text, logits: Tensor, token: int) -> Mapping[str, Any]:
        """The memory of the row's text once the token was picked after it, from logits (V,)."""
        return text.memory

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        """ValueError for what cannot be meant with so many tokens, these ends and texts of at most `limit` tokens."""
        return
