"""Speech: a text as it is told, token by token: what is held back until no stop string can begin in it, what its tokens
are called, and how likely they were.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runnel.codecs import Codec
from runnel.serve.jobs import Wrote
from runnel.stopping import StopText

LEAST = -9999.0
"""Stands for the logarithm of 0, which JSON cannot say."""


class Spoken(NamedTuple):
    """A token of the text. start: where its bytes begin. top: the likeliest tokens in its place. drafted: its place
    in the draft that guessed it before the model was asked; 0 for a token that nothing guessed.
    """

    token: int
    logprob: float | None
    top: dict[int, float]
    start: int
    drafted: int = 0


@dataclass
class Piece:
    """What is new of a text."""

    text: str = ""
    spoken: list[Spoken] = field(default_factory=list)


class Speech:
    """One text. stops: the tokens that end it, which are not part of it."""

    def __init__(self, codec: Codec, strings: Sequence[str | bytes] = (), stops: frozenset[int] = frozenset()) -> None:
        self.codec, self.stops = codec, stops
        self.shown, self.utf8 = StopText(codec, strings), getincrementaldecoder("utf-8")("replace")
        self.waiting: list[Spoken] = []
        self.begun = self.told = 0  # bytes that tokens stand for, bytes that are sure

    def begin_at(self, start: int) -> None:
        """The text stands after so many bytes."""
        self.begun, self.told = start, start

    def push(self, wrote: Wrote) -> Piece:
        """Tokens of a round."""
        text = b""
        for i, (token, logprob) in enumerate(zip(wrote.tokens, wrote.logprobs, strict=True)):
            if token in self.stops or self.shown.found:
                break
            drafted = i + 1 if i + 1 < len(wrote.tokens) else 0
            self.waiting.append(Spoken(token, logprob, wrote.tops[i] if wrote.tops else {}, self.begun, drafted))
            self.begun += len(self.codec.token_bytes[token])
            text += self.shown.push(token)
        return self._sure(text)

    def finish(self) -> Piece:
        """What was held back."""
        piece = self._sure(b"" if self.shown.found else self.shown.finish(), final=True)
        piece.spoken += [spoken for spoken in self.waiting if spoken.start < self.told]  # a stop string cuts the last
        return piece

    def _sure(self, text: bytes, final: bool = False) -> Piece:
        self.told += len(text)
        if self.told >= self.begun:
            sure, self.waiting = self.waiting, []
        else:
            sure = [spoken for spoken in self.waiting if self._end(spoken) <= self.told]
            self.waiting = [spoken for spoken in self.waiting if self._end(spoken) > self.told]
        return Piece(self.utf8.decode(text, final), sure)

    def _end(self, spoken: Spoken) -> int:
        return spoken.start + len(self.codec.token_bytes[spoken.token])


def name_of(codec: Codec, token: int) -> str:
    """A token as a string that is its alone: bytes that are no characters are spelled out."""
    piece = codec.token_bytes[token]
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def echoed(
    codec: Codec, tokens: Sequence[int], logprobs: Sequence[float], tops: Sequence[dict[int, float]]
) -> list[Spoken]:
    """The tokens of a prompt, nothing being known of the first."""
    found, start = [], 0
    for i, token in enumerate(tokens):
        found.append(Spoken(token, logprobs[i - 1] if i else None, tops[i - 1] if i and tops else {}, start))
        start += len(codec.token_bytes[token])
    return found


def completion_logprobs(codec: Codec, spoken: Sequence[Spoken], top: int) -> dict[str, Any]:
    """As /v1/completions writes it. Offsets count bytes."""
    return {
        "tokens": [name_of(codec, one.token) for one in spoken],
        "token_logprobs": [None if one.logprob is None else max(LEAST, one.logprob) for one in spoken],
        "top_logprobs": [_top(codec, one) for one in spoken] if top else None,
        "text_offset": [one.start for one in spoken],
    }


def _top(codec: Codec, one: Spoken) -> dict[str, float] | None:
    if one.logprob is None:
        return None
    found = {**one.top, one.token: one.logprob}
    return {name_of(codec, token): max(LEAST, logprob) for token, logprob in found.items()}


def chat_logprobs(codec: Codec, spoken: Sequence[Spoken]) -> dict[str, Any]:
    """As /v1/chat/completions writes it."""
    content = [
        {
            **_chat_token(codec, one.token, one.logprob or 0.0),
            "top_logprobs": [_chat_token(codec, token, logprob) for token, logprob in one.top.items()],
        }
        for one in spoken
    ]
    return {"content": content, "refusal": None}


def _chat_token(codec: Codec, token: int, logprob: float) -> dict[str, Any]:
    return {
        "token": name_of(codec, token),
        "logprob": max(LEAST, logprob),
        "bytes": list(codec.token_bytes[token]),
    }
