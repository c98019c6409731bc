"""Grammar: which tokens may go on with a text that must be in a language, for any codec.

Regular expressions and JSON schemas are read by llguidance (the extra `runnel[grammar]`), byte by byte, so that a token
may begin and end anywhere. Its parser is one mutable thing that can be rolled back; here a text that was read is a
plain value, a `Place`, and the parser moves to the place that it is asked about: to the next token, or back out of a
draft that was rejected, at the cost of the tokens between.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from runnel.codecs import Codec


@dataclass(frozen=True, eq=False)
class Place:
    """What was read: a token after another place, or nothing. parser: what reads the text and its neighbours."""

    parser: Parser = field(repr=False)
    parent: Place | None = None
    token: int = -1
    depth: int = 0


class Parser:
    """What reads a text and its neighbours, and the place where it stands. fresh: makes a matcher that read nothing."""

    def __init__(self, fresh: Callable[[], Any]) -> None:
        self.fresh, self.start = fresh, Place(self)
        self.matcher, self.at = fresh(), self.start

    def go(self, place: Place) -> Any:
        """The matcher, moved to a place."""
        back, ahead = 0, list[int]()
        here, there = self.at, place
        while here is not there:
            if there.depth >= here.depth:
                assert there.parent is not None
                ahead.append(there.token)
                there = there.parent
            else:
                assert here.parent is not None
                back, here = back + 1, here.parent
        if back:
            self.matcher.rollback(back)
        for token in reversed(ahead):
            self.matcher.consume_token(token)
        self.at = place
        self._check()
        return self.matcher

    def mask(self, place: Place) -> bytearray:
        """For each token, the end included, whether it may follow: 0 where it may not."""
        found = bytearray(self.go(place).compute_logit_bias())
        self._check()
        return found

    def _check(self) -> None:
        """A matcher that failed stays failed: another one starts again. That nothing follows is no failure."""
        if self.matcher.is_error():
            error = self.matcher.get_error()
            self._restart()
            if not error.startswith("NoExtensionBias"):
                raise ValueError(f"the grammar cannot be followed any further: {_line(error)}")

    def _restart(self) -> None:
        self.matcher, self.at = self.fresh(), self.start


class Grammar:
    """A language over the tokens of a codec. ValueError, in one line, when it cannot be read or holds no text."""

    def __init__(self, source: str, codec: Codec) -> None:
        library = _llguidance()
        self.vocab_size = codec.vocab_size
        self.matcher = library.LLMatcher(_tokenizer(library, codec), source, log_level=0)
        if self.matcher.is_error():
            raise ValueError(_line(self.matcher.get_error()))
        start = self.begin()
        if not bool(self.allowed(start).any()) and not self.accepts(start):
            raise ValueError("no text satisfies it")

    @classmethod
    def of_regex(cls, pattern: str, codec: Codec) -> Grammar:
        """The texts that a regular expression matches as a whole."""
        return cls(_llguidance().LLMatcher.grammar_from_regex(pattern), codec)

    @classmethod
    def of_json_schema(cls, schema: Mapping[str, Any], codec: Codec, whitespace: str | None) -> Grammar:
        """The JSON values of a schema. whitespace: a regular expression of what may stand between their parts."""
        layout = {"whitespace_flexible": False} if whitespace is None else {"whitespace_pattern": whitespace}
        source = _llguidance().LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=layout)
        return cls(source, codec)

    def begin(self) -> Place:
        """Nothing was read."""
        return Parser(self.matcher.deep_copy).start

    def follow(self, place: Place, token: int) -> Place | None:
        """The place after one more token; None when no text of the language goes on with it."""
        if place.parser.go(place).validate_tokens([token]) == 0:
            return None
        return Place(place.parser, place, token, place.depth + 1)

    def allowed(self, place: Place) -> Bool[Tensor, "V"]:
        """The tokens that may follow."""
        return torch.frombuffer(place.parser.mask(place), dtype=torch.uint8)[: self.vocab_size] > 0

    def accepts(self, place: Place) -> bool:
        """Whether what was read is a text of the language."""
        return place.parser.go(place).is_accepting()


def _tokenizer(library: Any, codec: Codec) -> Any:
    """The codec for llguidance. Its end token is none of the codec's; tokens that stand for no bytes are never text."""
    empty = [token for token, piece in enumerate(codec.token_bytes) if not piece]
    described = _Described(
        tokens=[piece or b"<%d>" % token for token, piece in enumerate(codec.token_bytes)] + [b"<end>"],
        special_token_ids=[*empty, codec.vocab_size],
        eos_token_id=codec.vocab_size,
        encode=codec.encode,
    )
    return library.LLTokenizer(library.TokenizerWrapper(described), n_vocab=codec.vocab_size + 1)


@dataclass(frozen=True)
class _Described:
    tokens: list[bytes]
    special_token_ids: list[int]
    eos_token_id: int
    encode: Any
    bos_token_id: None = None

    def __call__(self, text: str | bytes) -> list[int]:
        return self.encode(text)


def _llguidance() -> Any:
    try:
        import llguidance
    except ModuleNotFoundError:
        raise ValueError("grammars need the package llguidance: pip install 'runnel[grammar]'") from None
    return llguidance


def _line(error: str) -> str:
    """The first line of an error, and those that say what the error is."""
    first, *others = error.splitlines()
    return " ".join([first, *(line for line in others if line.startswith("error: "))])
