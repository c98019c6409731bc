"""Writing: a request to write becomes jobs of the engine, and their events an answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from runnel.request import text_of
from runnel.serve.answering import Call, Events, Lines, Stream, line, unless_gone
from runnel.serve.answers import Answer, Chat, Completion
from runnel.serve.jobs import Ended, Job
from runnel.serve.keys import Key
from runnel.serve.plan import plan, prompts_of, schema_of, schema_of_call
from runnel.serve.readings import Reading, Scored
from runnel.serve.served import prompt_of
from runnel.serve.service import Service
from runnel.serve.wire import ChatRequest, CompletionRequest, Sampling
from runnel.state import State

Meaning = Callable[[Service, Any, Key], Answer]


def completion_of(service: Service, asked: CompletionRequest, key: Key) -> Answer:
    """What is meant by a request to /v1/completions."""
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise ValueError(f"best_of must equal n, which is {asked.n or 1}; got {asked.best_of}")
    served = service.served
    limit = 16 if asked.max_tokens is None else asked.max_tokens
    meant = plan(served, asked, limit, asked.logprobs or 0, schema_of(asked.response_format))
    after, before = service.after(key, asked.state)
    prompts = prompts_of(served, asked.prompt, None if asked.state is None else before)
    return Completion(served, meant, prompts, asked, after)


def chat_of(service: Service, asked: ChatRequest, key: Key) -> Answer:
    """What is meant by a request to /v1/chat/completions."""
    if asked.top_logprobs is not None and not asked.logprobs:
        raise ValueError("top_logprobs needs logprobs; got top_logprobs alone")
    if asked.tools is None and asked.tool_choice not in (None, "none"):
        raise ValueError("tool_choice needs tools; got none")
    if None not in (asked.max_tokens, asked.max_completion_tokens):
        raise ValueError("give one of max_tokens and max_completion_tokens; got both")
    go_on = bool(asked.continue_final_message)
    if go_on and (asked.messages[-1].role != "assistant" or asked.tools or asked.response_format):
        raise ValueError(
            "continue_final_message needs a last message of the assistant, and neither tools nor response_format"
        )
    served = service.served
    limit = asked.max_completion_tokens or asked.max_tokens or min(1024, served.max_tokens)
    schema = schema_of(asked.response_format)
    call = schema_of_call(asked.tools or [], asked.tool_choice)
    if schema is not None and call is not None:
        raise ValueError("response_format and a tool_choice that forces a call exclude each other; got both")
    schema = schema or call
    meant = plan(served, asked, limit, asked.top_logprobs or 0, schema, () if schema else served.turns)
    after, before = service.after(key, asked.state)
    tools = asked.tools if asked.tool_choice != "none" else None
    prompt = prompt_of(served.codec, asked.messages, tools, go_on, None if asked.state is None else before)
    return Chat(served, meant, [text_of(prompt, 0, served.vocab_size)], asked, after)


async def answer(request: Request, service: Service, meaning: Meaning, asked: Sampling) -> Response:
    """Write what is asked. meaning: `completion_of` or `chat_of`."""
    service.check_model(asked.model)
    if asked.stream_options is not None and not asked.stream:
        raise ValueError("stream_options needs stream; got stream_options alone")
    key: Key = request.state.key
    if asked.save_state:
        await run_in_threadpool(service.check_room, key)
    call = Call(service.engine)
    try:
        found = await run_in_threadpool(meaning, service, asked, key)
        for job in await run_in_threadpool(_jobs, service, found, call, key):
            call.submit(job)
        heard = partial(_heard, service, found, call, key)
        if asked.stream:
            first = await unless_gone(request, heard())  # so that what fails at once has a status
            return Stream(call, _lines(found, first, heard))
        await unless_gone(request, _whole(found, heard))
    except BaseException:
        call.close()
        raise
    return JSONResponse(found.whole())


def _jobs(service: Service, found: Answer, call: Call, key: Key) -> list[Job]:
    """A job for each prompt. Runs in a thread of its own, since states are read from disk and drafters read prompts."""
    asked, seconds = found.asked, service.served.deadline
    deadline = time.monotonic() + min(asked.timeout or seconds, seconds)
    jobs = []
    for number, prompt in enumerate(found.prompts):
        rows = found.plan.rows(number, prompt, int(found.after.lengths[0]) + len(prompt))
        reading, keep = _reading(service, found, prompt, key)
        stride = service.prefixes.stride if keep is not None else 0
        jobs.append(Job(key.name, asked.user or "", reading, call.tell(number), rows, deadline, keep, stride))
    return jobs


def _reading(
    service: Service, found: Answer, prompt: Sequence[int], key: Key
) -> tuple[Reading, Callable[[int, State], None] | None]:
    """How a prompt is read, and what keeps its states on the way; only those of whole texts are kept."""
    asked, unread = found.asked, prompt[:-1]
    if isinstance(asked, CompletionRequest) and asked.echo and asked.logprobs is not None:
        return Scored(prompt, found.after, asked.logprobs), None
    if asked.state is not None:
        return Reading(unread, found.after), None
    known = service.prefixes.longest(key.name, unread)
    reading = Reading(unread, found.after) if known is None else Reading(unread, known.state, known.tokens)
    found.cached += reading.at
    return reading, lambda at, state: service.note(key, unread[:at], (state, 0))


async def _heard(service: Service, found: Answer, call: Call, key: Key) -> Events:
    """The next events of a call; what they end is kept where that was asked for."""
    events = await call.several()
    for number, event in events:
        if not isinstance(event, Ended):
            continue
        row = call.jobs[number].rows[event.row]
        if found.asked.state is None and row.tokens:
            service.note(key, [*found.prompts[number], *row.tokens[:-1]], event.place)
        if found.asked.save_state:
            entry = await run_in_threadpool(service.keep, key, event.place, row.newest, "")
            found.choices[found.index(number, event)].state = entry.id
    return events


async def _whole(found: Answer, heard: Callable[[], Awaitable[Events]]) -> None:
    while events := await heard():
        for number, event in events:
            found.hear(number, event)


async def _lines(found: Answer, first: Events, heard: Callable[[], Awaitable[Events]]) -> AsyncIterator[str]:
    """The stream, what is there together in one piece. first: the events that were waited for before it was begun."""
    options = found.asked.stream_options
    wants_usage = options is not None and options.include_usage
    head = found.begun(found.part_kind)
    told = Lines(head, {"usage": None} if wants_usage else {})
    beginnings = [found.first(index) for index in range(len(found.choices))]
    yield "".join([told(beginning) for beginning in beginnings if beginning is not None])
    events = first
    while events:
        yield "".join([told(part) for number, event in events for part in found.hear(number, event)])
        events = await heard()
    if wants_usage:
        yield line({**head, "choices": [], "usage": found.usage()})
