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
from runnel.serve.jobs import Ended, Event, Failed, Job

Found = TypeVar("Found")


class Gone(Exception):
    """The client has gone."""


class Call:
    """The jobs of one request, and their events as they come. Closing it cancels what still runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.jobs = engine, list[Job]()
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue[tuple[int, Event]]()
        self.open, self.failed = 0, list[BaseException]()

    def tell(self, number: int) -> Callable[[Event], None]:
        """What a job of this number tells its events to."""

        def tell(event: Event) -> None:
            self.queue.put_nowait((number, event))

        return tell

    def submit(self, job: Job) -> None:
        job.post = self.loop.call_soon_threadsafe
        self.engine.submit(job)
        self.jobs.append(job)
        self.open += job.width

    async def next(self) -> tuple[int, Event] | None:
        """The next event with the number of its job; None when all is done. Raises what a job failed with."""
        if self.failed:
            raise self.failed[0]
        if not self.open:
            return None
        number, event = await self.queue.get()
        if isinstance(event, Failed):
            self.failed.append(event.error)
            raise event.error
        if isinstance(event, Ended) or not self.jobs[number].rows:
            self.open -= 1
        return number, event

    async def several(self) -> list[tuple[int, Event]]:
        """The next events that are there together; none when all is done."""
        found = [await self.next()]
        while found[-1] is not None and not self.queue.empty():
            try:
                found.append(await self.next())
            except BaseException:
                break  # which is told next time
        return [event for event in found if event is not None]

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        while (found := await self.next()) is not None:
            yield found

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
    """Server-sent events, those that are there together in one piece. Whatever becomes of the client, the call is
    closed.
    """

    def __init__(self, call: Call, events: AsyncIterator[list[Any]]) -> None:
        super().__init__(_lines(events), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self.call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.call.close()


_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


async def _lines(events: AsyncIterator[list[Any]]) -> AsyncIterator[str]:
    from runnel.serve.errors import described

    try:
        async for together in events:
            if together:
                yield "".join([f"data: {_written(event)}\n\n" for event in together])
    except Exception as error:
        yield f"data: {json.dumps(described(error)[1])}\n\n"
        return
    yield "data: [DONE]\n\n"
