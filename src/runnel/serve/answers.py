"""Answers: how what was written is told, whole or part by part, by /v1/completions and /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runnel.serve import speech
from runnel.serve.jobs import Ended, Read, Told, Wrote
from runnel.serve.plan import Plan, call_in
from runnel.serve.readings import Reading, Scored
from runnel.serve.served import Served
from runnel.serve.speech import Piece, Speech, Spoken
from runnel.serve.wire import ChatRequest, CompletionRequest, Sampling
from runnel.state import State

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}


@dataclass
class Choice:
    """One text of an answer as it grows. length: in characters. state: the id of its state, when that was kept."""

    speech: Speech
    pieces: list[Piece] = field(default_factory=list)
    length: int = 0
    tokens: int = 0
    reason: str | None = None
    state: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def spoken(self) -> list[Spoken]:
        return [spoken for piece in self.pieces for spoken in piece.spoken]

    def hear(self, event: Wrote | Ended) -> Piece:
        """What an event adds to the text."""
        if isinstance(event, Wrote):
            self.tokens += len(event.tokens)
            piece = self.speech.push(event)
        else:
            self.reason = REASONS[event.reason]
            piece = self.speech.finish()
        self.pieces.append(piece)
        self.length += len(piece.text)
        return piece


class Answer(ABC):
    """An answer of several choices. It knows how each of its parts is written. after: the state that the prompts
    follow.
    """

    kind, part_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(
        self, served: Served, plan: Plan, prompts: Sequence[Sequence[int]], asked: Sampling, after: State
    ) -> None:
        self.served, self.plan, self.prompts, self.asked, self.after = served, plan, prompts, asked, after
        self.choices = [Choice(Speech(served.codec, plan.strings, plan.stops)) for _ in prompts for _ in range(plan.n)]
        self.identity, self.created, self.cached = f"{self.prefix}-{secrets.token_hex(12)}", int(time.time()), 0

    def begun(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.identity,
            "object": kind,
            "created": self.created,
            "model": self.served.name,
            "system_fingerprint": self.served.fingerprint,
        }

    def usage(self) -> dict[str, Any]:
        written = sum(choice.tokens for choice in self.choices)
        read = sum(map(len, self.prompts))
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }

    def index(self, number: int, event: Wrote | Ended) -> int:
        """The choice that an event of a job of this number is about."""
        return number * self.plan.n + event.row

    def hear(self, number: int, event: Told) -> list[dict[str, Any]]:
        """What an event adds to the choices, as parts of a stream."""
        if isinstance(event, Read):
            return []
        index = self.index(number, event)
        piece = self.choices[index].hear(event)
        silent = not piece.text and not piece.spoken and self.choices[index].reason is None
        return [] if silent else [self.part(index, piece)]

    def whole(self) -> dict[str, Any]:
        choices = [self.choice(index, choice) for index, choice in enumerate(self.choices)]
        return {**self.begun(self.kind), "choices": choices, "usage": self.usage()}

    @abstractmethod
    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        """A text as a whole."""

    @abstractmethod
    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        """What is new of a text."""

    def first(self, index: int) -> dict[str, Any] | None:
        """What a choice begins with in a stream."""
        return None


class Completion(Answer):
    asked: CompletionRequest

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return self._choice(index, choice, choice.text, choice.spoken)

    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        found = self._choice(index, self.choices[index], piece.text, piece.spoken)
        return {**found, "drafted": [one.drafted for one in piece.spoken]}

    def hear(self, number: int, event: Told) -> list[dict[str, Any]]:
        if isinstance(event, Read) and self.asked.echo:
            return self._echo(number, event.reading)
        return super().hear(number, event)

    def _choice(self, index: int, choice: Choice, text: str, spoken: Sequence[Spoken]) -> dict[str, Any]:
        asked = self.asked.logprobs
        told = None if asked is None else speech.completion_logprobs(self.served.codec, spoken, asked)
        return {
            "index": index,
            "text": text,
            "logprobs": told,
            "finish_reason": choice.reason,
            **({} if choice.state is None else {"state": choice.state}),
        }

    def _echo(self, number: int, reading: Reading) -> list[dict[str, Any]]:
        """The prompt stands before every one of its texts."""
        codec, prompt = self.served.codec, self.prompts[number]
        spoken = speech.echoed(codec, prompt, reading.logprobs, reading.tops) if isinstance(reading, Scored) else []
        piece, parts = Piece(codec.decode(prompt), spoken), []
        for index in range(number * self.plan.n, (number + 1) * self.plan.n):
            self.choices[index].pieces.append(piece)
            self.choices[index].speech.begin_at(len(codec.decode_bytes(prompt)))
            parts.append(self.part(index, piece))
        return parts


class Chat(Answer):
    kind, part_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"
    asked: ChatRequest

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        text = self._begun(choice.text)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        reason = choice.reason
        called = call_in(text, self.asked.tools) if self.asked.tools and self.asked.tool_choice != "none" else None
        if called is not None and reason == "stop":
            message |= {"content": None, "tool_calls": [_tool_call(*called)]}
            reason = "tool_calls"
        return {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(choice.spoken),
            "finish_reason": reason,
            **({} if choice.state is None else {"state": choice.state}),
        }

    def first(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        choice, text = self.choices[index], piece.text
        if choice.length == len(text):  # the first of it
            text = self._begun(text)
        reason = choice.reason
        delta: dict[str, Any] = {"content": text} if text else {}
        if self.holds_back:
            delta = {}
            if reason is not None:
                whole = self.choice(index, choice)
                reason = whole["finish_reason"]
                calls = whole["message"].get("tool_calls")
                delta = {"content": whole["message"]["content"]} if calls is None else {"tool_calls": _numbered(calls)}
        logprobs = self._logprobs(piece.spoken) if piece.spoken else None
        return {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": reason,
            "drafted": [one.drafted for one in piece.spoken],
            **({} if choice.state is None else {"state": choice.state}),
        }

    def _begun(self, text: str) -> str:
        """The beginning of an answer without the space behind the role."""
        return text if self.asked.continue_final_message else text.removeprefix(" ")

    @property
    def holds_back(self) -> bool:
        """A text that may turn out to be a call is told when it is whole."""
        return bool(self.asked.tools) and self.asked.tool_choice != "none"

    def _logprobs(self, spoken: Sequence[Spoken]) -> dict[str, Any] | None:
        return speech.chat_logprobs(self.served.codec, spoken) if self.asked.logprobs else None


def _tool_call(name: str, arguments: str) -> dict[str, Any]:
    identity = f"call_{secrets.token_hex(12)}"
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _numbered(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"index": number, **call} for number, call in enumerate(calls)]
