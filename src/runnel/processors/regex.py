"""Regular expression: what is written must match one as a whole.

    l'_v = -inf  unless some text that matches begins with the written bytes and v, or v ends the text and the written
           bytes match                                                                 (1)

The expression is one over the bytes of the text (UTF-8), read by llguidance with derivatives; its syntax is that of
Rust's `regex`: no look-around, no references back. Any tokens may spell the match, and begin and end anywhere in it.
A text that is cut by max_new_tokens only begins like a match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runnel.codecs import Codec
from runnel.grammar import Grammar
from runnel.processors import GrammarConstraint

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """pattern: what the whole text must match. codec: of the tokens."""

    pattern: str
    codec: Codec


class Regex(GrammarConstraint):
    config: Config

    def grammar(self) -> Grammar:
        return Grammar.of_regex(self.config.pattern, self.config.codec)


def reference(text: bytes, config: Config) -> bool:
    """Whether a finished text is allowed."""
    return re.fullmatch(config.pattern.encode(), text) is not None
