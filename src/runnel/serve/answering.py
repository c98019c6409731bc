"""Answering: from the events of a request's jobs to what a client is sent, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from runnel.serve.engine import Engine
from runnel.serve.jobs import Ended, Event, Failed, Job, Late, Told

Found = TypeVar("Found")
Events = list[tuple[int, Told]]
"""What was told, each with the number of its job."""


UNREAD = 1 << 16
"""Events that may wait for a client who reads slowly: more than a text of 32768 tokens has, some tens of megabytes."""


class Gone(Exception):
    """The client has gone."""


class Call:
    """The jobs of one request, and their events as they come. Closing it cancels what still runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.jobs = engine, list[Job]()
        self.loop = asyncio.get_running_loop()
        self.told = list[tuple[int, Event]]()
        self.waiting: asyncio.Future[None] | None = None  # of who wants to hear when there is something
        self.open = 0
        self.failed: BaseException | None = None

    def tell(self, number: int) -> Callable[[Event], None]:
        """What a job of this number tells its events to."""

        def tell(event: Event) -> None:
            if len(self.told) >= UNREAD:
                self.close()
                self.told, event = [], Failed(Late(f"the client is slow: {UNREAD} parts of the answer wait to be read"))
            self.told.append((number, event))
            if self.waiting is not None and not self.waiting.done():
                self.waiting.set_result(None)

        return tell

    def submit(self, job: Job) -> None:
        job.post = self.loop.call_soon_threadsafe
        self.engine.submit(job)
        self.jobs.append(job)
        self.open += job.width

    async def several(self) -> Events:
        """The events that are there, or else the next one; none when all is done. Raises what a job failed with, after
        what was told before.
        """
        if self.failed is None and not self.told and self.open:
            self.waiting = self.loop.create_future()
            await self.waiting
        if self.failed is not None:
            raise self.failed
        told, self.told = self.told, []
        found: Events = []
        for number, event in told:
            if isinstance(event, Failed):
                self.failed = event.error
                return found or await self.several()
            if isinstance(event, Ended) or not self.jobs[number].rows:
                self.open -= 1
            found.append((number, event))
        return found

    def close(self) -> None:
        for job in self.jobs:
            job.cancel()


async def unless_gone(request: Request, work: Awaitable[Found]) -> Found:
    """What the work gives. Gone when the client leaves before."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_leaves(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Stream(StreamingResponse):
    """Server-sent events. Whatever becomes of the client, the call is closed."""

    def __init__(self, call: Call, events: AsyncIterator[str]) -> None:
        super().__init__(_ended(events), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.call.close()


_encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def line(event: Any) -> str:
    """An event of a stream."""
    return f"data: {_encoded(event)}\n\n"


class Lines:
    """The events of a stream that differ in one part only. The rest of them is encoded once."""

    def __init__(self, head: dict[str, Any], tail: dict[str, Any]) -> None:
        self.before, _, self.after = line({**head, "choices": [None], **tail}).partition('"choices": [null]')

    def __call__(self, choice: dict[str, Any]) -> str:
        return f'{self.before}"choices": [{_encoded(choice)}]{self.after}'


async def _ended(events: AsyncIterator[str]) -> AsyncIterator[str]:
    from runnel.serve.errors import described

    try:
        async for together in events:
            if together:
                yield together
    except Exception as error:
        yield line(described(error)[1])
        return
    yield "data: [DONE]\n\n"
