"""Writing: /v1/completions and /v1/chat/completions, from what is asked to what is answered."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from runnel.serve import answering, speech
from runnel.serve.answering import Call, Stream, unless_gone
from runnel.serve.engine import Engine
from runnel.serve.jobs import Ended, Event, Job, Read, Wrote
from runnel.serve.plan import Plan, call_in, plan, prompts_of, schema_of, schema_of_call
from runnel.serve.readings import Reading, Scored
from runnel.serve.served import STOPS, Served, conversation
from runnel.serve.speech import Piece, Speech, Spoken
from runnel.serve.wire import ChatRequest, CompletionRequest, Sampling

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}


@dataclass
class Choice:
    """One text of an answer as it grows."""

    speech: Speech
    pieces: list[Piece] = field(default_factory=list)
    tokens: int = 0
    reason: str | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def spoken(self) -> list[Spoken]:
        return [spoken for piece in self.pieces for spoken in piece.spoken]

    def hear(self, event: Event) -> Piece:
        """What an event adds to the text."""
        if isinstance(event, Wrote):
            self.tokens += len(event.tokens)
            piece = self.speech.push(event)
        else:
            assert isinstance(event, Ended)
            self.reason = REASONS[event.reason]
            piece = self.speech.finish()
        self.pieces.append(piece)
        return piece


class Answer:
    """An answer of several choices. It knows how each of its parts is written."""

    kind, part_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, served: Served, plan: Plan, prompts: Sequence[Sequence[int]], asked: Sampling) -> None:
        self.served, self.plan, self.prompts, self.asked = served, plan, prompts, asked
        self.choices = [Choice(Speech(served.codec, plan.strings, plan.stops)) for _ in prompts for _ in range(plan.n)]
        self.identity, self.cached = f"{self.prefix}-{secrets.token_hex(12)}", 0

    def begun(self, kind: str) -> dict[str, Any]:
        return answering.begun(kind, self.served.name, self.identity, self.served.fingerprint)

    def usage(self) -> dict[str, Any]:
        written = sum(choice.tokens for choice in self.choices)
        return answering.usage_of([len(prompt) for prompt in self.prompts], self.cached, written)

    def hear(self, number: int, event: Event) -> tuple[int, Piece] | None:
        """The choice that an event adds to, and what it adds."""
        if isinstance(event, Read):
            return None
        assert isinstance(event, Wrote | Ended)
        index = number * self.plan.n + event.row
        return index, self.choices[index].hear(event)

    def whole(self) -> dict[str, Any]:
        choices = [self.choice(index, choice) for index, choice in enumerate(self.choices)]
        return {**self.begun(self.kind), "choices": choices, "usage": self.usage()}

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        raise NotImplementedError

    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def first(self, index: int) -> dict[str, Any] | None:
        """What a choice begins with in a stream."""
        return None

    async def parts(self, call: Call, heard: tuple[int, Event] | None) -> AsyncIterator[dict[str, Any]]:
        """The stream. heard: the event that was waited for before it was begun."""
        wants_usage = self.asked.stream_options is not None and self.asked.stream_options.include_usage
        usage = {"usage": None} if wants_usage else {}
        for index in range(len(self.choices)):
            if (first := self.first(index)) is not None:
                yield {**self.begun(self.part_kind), "choices": [first], **usage}
        while heard is not None:
            found = self.hear(*heard)
            if found is not None and (found[1].text or found[1].spoken or self.choices[found[0]].reason):
                yield {**self.begun(self.part_kind), "choices": [self.part(*found)], **usage}
            heard = await call.next()
        if wants_usage:
            yield {**self.begun(self.part_kind), "choices": [], "usage": self.usage()}


class Completion(Answer):
    asked: CompletionRequest

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        return self._choice(index, choice.text, choice.spoken, choice.reason)

    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        found = self._choice(index, piece.text, piece.spoken, self.choices[index].reason)
        return {**found, "drafted": sum(one.drafted for one in piece.spoken)}

    def hear(self, number: int, event: Event) -> tuple[int, Piece] | None:
        if isinstance(event, Read) and self.asked.echo:
            self._echo(number, event.reading)
        return super().hear(number, event)

    def first(self, index: int) -> dict[str, Any] | None:
        return None

    def _choice(self, index: int, text: str, spoken: Sequence[Spoken], reason: str | None) -> dict[str, Any]:
        asked = self.asked.logprobs
        told = None if asked is None else speech.completion_logprobs(self.served.codec, spoken, asked)
        return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}

    def _echo(self, number: int, reading: Reading) -> None:
        """The prompt stands before every one of its texts."""
        codec, prompt = self.served.codec, self.prompts[number]
        scored = isinstance(reading, Scored)
        logprobs = reading.logprobs if isinstance(reading, Scored) else []
        tops = reading.tops if isinstance(reading, Scored) else []
        spoken = list(speech.echoed(codec, prompt, logprobs, tops)) if scored else []
        for choice in self.choices[number * self.plan.n : (number + 1) * self.plan.n]:
            choice.pieces.append(Piece(codec.decode(prompt), spoken))
            choice.speech.begin_at(len(codec.decode_bytes(prompt)))


class Chat(Answer):
    kind, part_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"
    asked: ChatRequest

    def choice(self, index: int, choice: Choice) -> dict[str, Any]:
        text = choice.text.removeprefix(" ")
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        reason = choice.reason
        called = call_in(text, self.asked.tools) if self.asked.tools and self.asked.tool_choice != "none" else None
        if called is not None and reason == "stop":
            message |= {"content": None, "tool_calls": [_tool_call(*called)]}
            reason = "tool_calls"
        return {"index": index, "message": message, "logprobs": self._logprobs(choice.spoken), "finish_reason": reason}

    def first(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}

    def part(self, index: int, piece: Piece) -> dict[str, Any]:
        choice, text = self.choices[index], piece.text
        if choice.text == text:  # the first of it
            text = text.removeprefix(" ")
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
        drafted = sum(one.drafted for one in piece.spoken)
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason, "drafted": drafted}

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


def completion_of(served: Served, asked: CompletionRequest) -> Completion:
    """What is meant by a request to /v1/completions."""
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise ValueError(f"best_of must equal n, which is {asked.n or 1}; got {asked.best_of}")
    limit = 16 if asked.max_tokens is None else asked.max_tokens
    meant = plan(served, asked, limit, asked.logprobs or 0, schema_of(asked.response_format))
    return Completion(served, meant, prompts_of(served, asked.prompt), asked)


def chat_of(served: Served, asked: ChatRequest) -> Chat:
    """What is meant by a request to /v1/chat/completions."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise ValueError("top_logprobs needs logprobs; got top_logprobs alone")
    if asked.tools is None and asked.tool_choice not in (None, "none"):
        raise ValueError("tool_choice needs tools; got none")
    if None not in (asked.max_tokens, asked.max_completion_tokens):
        raise ValueError("give one of max_tokens and max_completion_tokens; got both")
    limit = asked.max_completion_tokens or asked.max_tokens or min(1024, served.max_tokens)
    schema = schema_of(asked.response_format)
    call = schema_of_call(asked.tools or [], asked.tool_choice)
    if schema is not None and call is not None:
        raise ValueError("response_format and a tool_choice that forces a call exclude each other; got both")
    offered = asked.tools if asked.tool_choice != "none" else None
    schema = schema or call
    prompt = conversation(asked.messages, offered)
    meant = plan(served, asked, limit, asked.top_logprobs or 0, schema, () if schema else STOPS)
    return Chat(served, meant, prompts_of(served, prompt), asked)


def jobs_of(answer: Answer, call: Call, owner: str, deadline: float) -> list[Job]:
    """A job for each prompt. Runs in a thread of its own: drafters read the prompts."""
    found = []
    for number, prompt in enumerate(answer.prompts):
        state = answer.served.model.init_state(1)
        asked = answer.asked
        reading = Reading(prompt[:-1], state)
        if isinstance(asked, CompletionRequest) and asked.echo and asked.logprobs is not None:
            reading = Scored(prompt, state, asked.logprobs)
        rows = answer.plan.rows(number, prompt, len(prompt))
        found.append(Job(owner, reading, call.tell(number), rows, deadline))
    return found


async def answer(request: Request, served: Served, engine: Engine, meaning: Any, asked: Sampling) -> Response:
    """Write what is asked. meaning: `completion_of` or `chat_of`."""
    if asked.stream_options is not None and not asked.stream:
        raise ValueError("stream_options needs stream; got stream_options alone")
    owner = f"{request.state.owner}/{asked.user or ''}"
    deadline = time.monotonic() + min(asked.timeout or served.deadline, served.deadline)
    call = Call(engine)
    try:
        found: Answer = await run_in_threadpool(meaning, served, asked)
        for job in await run_in_threadpool(jobs_of, found, call, owner, deadline):
            call.submit(job)
        if asked.stream:
            heard = await unless_gone(request, call.next())
            return Stream(call, found.parts(call, heard))
        await unless_gone(request, _hear_all(found, call))
    except BaseException:
        call.close()
        raise
    return JSONResponse(found.whole())


async def _hear_all(found: Answer, call: Call) -> None:
    async for number, event in call:
        found.hear(number, event)
