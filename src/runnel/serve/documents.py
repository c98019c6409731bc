"""Documents: states that are kept under an id, made from texts of any length, downloaded, taken back, deleted."""

from __future__ import annotations

import tempfile
import time
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import ValidationError

from runnel.codecs import Codec
from runnel.request import text_of
from runnel.serve.answering import Call, unless_gone
from runnel.serve.errors import Refused
from runnel.serve.jobs import Job, Read
from runnel.serve.keys import Key
from runnel.serve.readings import Reading
from runnel.serve.service import Service
from runnel.serve.store import Entry
from runnel.serve.wire import StateRequest
from runnel.state import State

PIECE = 1 << 16
"""Characters of a streamed text that become tokens together."""
TEXT, FILE, JSON = "text/plain", "application/octet-stream", "application/json"


def add_routes(app: FastAPI, service: Service) -> None:
    body = {
        "required": True,
        "content": {
            JSON: {"schema": StateRequest.model_json_schema()},
            TEXT: {"schema": {"type": "string"}},
            FILE: {"schema": {"type": "string", "format": "binary"}},
        },
    }

    @app.post("/v1/states", response_model=None, status_code=201, openapi_extra={"requestBody": body})
    async def make(request: Request) -> Response:
        """From JSON; from a text of any length, which is read while it comes; or from a file that was downloaded."""
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        key: Key = request.state.key
        await run_in_threadpool(service.check_room, key)
        if kind == FILE:
            return _made(await _taken(request, service, key))
        if kind == TEXT:
            state, before = service.after(key, None)
            tokens = _encoded(service.served.codec, _characters(request))
            return _made(await _read(service, key, state, before, tokens))
        asked = await _asked(request)
        service.check_model(asked.model)
        state, before = await run_in_threadpool(service.after, key, asked.state)
        given = asked.input
        encode = service.served.codec.begin if asked.state is None else service.served.codec.encode
        whole = await run_in_threadpool(encode, given) if isinstance(given, str) else given
        tokens = _once(text_of([*before, *whole], 0, service.served.vocab_size)[len(before) :])
        reading = _read(service, key, state, before, tokens, asked.name or "", asked.timeout)
        return _made(await unless_gone(request, reading))

    @app.get("/v1/states")
    async def listed(request: Request, limit: int = 100, after: str | None = None) -> dict[str, Any]:
        if not 1 <= limit <= 1000:
            raise ValueError(f"limit must lie in [1, 1000]; got {limit}")
        found = await run_in_threadpool(service.store.documents, request.state.key.name, limit + 1, after)
        return {"object": "list", "data": [_described(e) for e in found[:limit]], "has_more": len(found) > limit}

    @app.get("/v1/states/{identity}")
    async def shown(identity: str, request: Request) -> dict[str, Any]:
        return _described(await run_in_threadpool(service.entry, request.state.key, identity))

    @app.delete("/v1/states/{identity}")
    async def deleted(identity: str, request: Request) -> dict[str, Any]:
        entry = await run_in_threadpool(service.drop, request.state.key, identity)
        return {"id": entry.id, "object": "state", "deleted": True}

    @app.get("/v1/states/{identity}/file", response_model=None)
    async def file(identity: str, request: Request) -> Response:
        """The state as a file, which `POST /v1/states` takes again."""
        entry = await run_in_threadpool(service.entry, request.state.key, identity)
        return FileResponse(service.store.file(entry), media_type=FILE, filename=f"{entry.id}.state")


async def _asked(request: Request) -> StateRequest:
    try:
        return StateRequest.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where or 'body'}: {first['msg']}") from None


async def _read(
    service: Service,
    key: Key,
    state: State,
    before: list[int],
    pieces: AsyncIterator[list[int]],
    name: str = "",
    timeout: float | None = None,
) -> Entry:
    """Read tokens after a state as they come, and keep the state of all but the newest. timeout: for each piece."""
    newest = before
    async for piece in pieces:
        *unread, last = [*newest, *piece]
        state = await _after(service, key, state, unread, timeout)
        newest = [last]
    if not newest:
        raise ValueError("a state needs a text of at least one token; got none")
    return await run_in_threadpool(service.keep, key, (state, 0), newest[0], name)


async def _after(service: Service, key: Key, state: State, tokens: Sequence[int], timeout: float | None) -> State:
    if not tokens:
        return state
    seconds = service.served.deadline
    deadline = time.monotonic() + min(timeout or seconds, seconds)
    call = Call(service.engine)
    try:
        call.submit(Job(key.name, "", Reading(tokens, state), call.tell(0), deadline=deadline))
        ((_, event),) = await call.several()
    finally:
        call.close()
    assert isinstance(event, Read)
    return event.reading.state


async def _once(tokens: list[int]) -> AsyncIterator[list[int]]:
    if tokens:
        yield tokens


async def _characters(request: Request) -> AsyncIterator[str]:
    """The text of a body as it comes. ValueError for bytes that are not UTF-8."""
    decoder = getincrementaldecoder("utf-8")()
    async for chunk in request.stream():
        yield decoder.decode(chunk)
    yield decoder.decode(b"", final=True)


async def _encoded(codec: Codec, characters: AsyncIterator[str]) -> AsyncIterator[list[int]]:
    """Tokens of a text, piece by piece; a piece ends with a line where it has one, so that no word is torn."""
    held, encode = "", codec.begin  # the first piece begins the text
    async for some in characters:
        held += some
        while len(held) >= PIECE:
            end = held.rfind("\n", 0, PIECE) + 1 or PIECE
            piece, held = held[:end], held[end:]
            yield await run_in_threadpool(encode, piece)
            encode = codec.encode
    if held:
        yield await run_in_threadpool(encode, held)


async def _taken(request: Request, service: Service, key: Key) -> Entry:
    """A state from a file that was downloaded from this server."""
    with tempfile.NamedTemporaryFile(suffix=".state") as file:
        size, most = 0, min(key.state_bytes, service.store.budget.disk)
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise Refused(413, f"a state file may have at most {most} bytes")
            file.write(chunk)
        file.flush()
        try:
            state, newest = await run_in_threadpool(service.store.read, Path(file.name))
        except ValueError as error:
            raise ValueError(str(error).replace(file.name, "the file")) from None
    return await run_in_threadpool(service.keep, key, (state, 0), newest, "")


def _made(entry: Entry) -> Response:
    return JSONResponse(_described(entry), 201, {"Location": f"/v1/states/{entry.id}"})


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "state",
        "created": entry.created,
        "name": entry.name,
        "tokens": entry.tokens + (entry.newest is not None),
        "bytes": entry.bytes,
    }
