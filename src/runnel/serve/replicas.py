"""Replicas: several servers as processes of this machine, and a router in front of them that looks like one server.

All replicas read and write the same kept states, so any of them can answer any request. The router sends what belongs
together to the same one, which has its states in memory: requests by their `state`, else by how their text begins. Who
has much to do already is passed over. A replica that ends is started again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runnel.serve.answering import Gone, unless_gone
from runnel.serve.door import PATIENCE
from runnel.serve.errors import Refused, answered
from runnel.serve.jobs import Busy
from runnel.serve.keys import Keys
from runnel.serve.server import Settings, check_address, server_of, share_memory
from runnel.serve.store import claim

log = logging.getLogger("runnel.serve")
METHODS = ["GET", "POST", "DELETE", "HEAD", "PUT", "PATCH", "OPTIONS"]
HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length"})
"""Headers of one connection, not of what is said on it."""
BEGINNING = 256
"""Characters of a text by which it is known."""
AHEAD = 4
"""Requests that a replica may have more than the idlest one before what belongs to it goes elsewhere."""
WAIT = 300.0
"""Seconds that a replica has to start."""


class Replica:
    """A server in a process of its own, at a port of this machine that only the router is told."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.address, self.busy, self.ending = settings, "", 0, False
        self._watcher = threading.Thread(target=self._watch, name="runnel-replica", daemon=True)

    def start(self) -> None:
        self._spawn()
        self._watcher.start()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.settings, theirs), daemon=True)
        self.process.start()
        theirs.close()
        if not self._pipe.poll(WAIT):
            self.process.kill()
            raise RuntimeError(f"a replica did not start within {WAIT:.0f} seconds")
        self.address = self._pipe.recv()  # EOFError when it ended before

    def _watch(self) -> None:
        while True:
            self.process.join()
            if self.ending:
                return
            log.error("a replica ended with %s and is started again", self.process.exitcode)
            self.address = ""
            try:
                self._spawn()
            except (EOFError, RuntimeError) as error:
                log.error("a replica could not be started again: %r", error)
                return

    def stop(self) -> None:
        """Let it finish what runs."""
        self.ending = True
        self.process.terminate()
        self.process.join(self.settings.drain + 10)


def _serve(settings: Settings, pipe: Any) -> None:
    """A replica's process. It ends with the router, whose end of the pipe closes."""
    share_memory()
    threading.Thread(target=_outlive, args=(pipe,), daemon=True).start()
    server_of(settings, pipe.send).run()


def _outlive(pipe: Any) -> None:
    try:
        pipe.recv()
    except EOFError:
        os.kill(os.getpid(), signal.SIGTERM)


class _Passed(StreamingResponse):
    """What a replica answers, as it comes. Whatever becomes of the client, the replica is rid of it."""

    def __init__(self, replica: Replica, found: httpx.Response) -> None:
        headers = {name: value for name, value in found.headers.items() if name not in HOPS}
        super().__init__(found.aiter_raw(), found.status_code, headers)
        self.replica, self.found = replica, found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.replica.busy -= 1
            await self.found.aclose()


class Router:
    """Which replica answers what."""

    def __init__(self, replicas: list[Replica], most: int) -> None:
        self.replicas, self.most = replicas, most
        self.client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None), trust_env=False)

    def choose(self, mark: str | None) -> Replica:
        """The replica that a mark belongs to, unless it is busy; the idlest one for what has no mark."""
        running = [replica for replica in self.replicas if replica.address]
        if not running:
            raise Busy("no replica is running yet", 1)
        idlest = min(running, key=lambda replica: replica.busy)
        if mark is None:
            return idlest
        own = max(running, key=lambda replica: rank(mark, self.replicas.index(replica)))
        return own if own.busy <= idlest.busy + AHEAD else idlest

    async def handle(self, request: Request) -> Response:
        try:
            if request.url.path == "/metrics":
                return await self._metrics(request)
            if request.url.path in ("/health", "/ready"):
                return await self._all(request)
            body, mark = await read_marked(request, self.most)
            return await self._forward(request, self.choose(mark), body)
        except (Refused, Busy) as error:
            return answered(error)
        except (ClientDisconnect, Gone):
            return Response(status_code=499)
        except httpx.TransportError:
            return answered(Refused(502, "the replica that this belonged to has ended; ask again", "server_error"))

    async def _forward(self, request: Request, replica: Replica, body: bytes | AsyncIterator[bytes]) -> Response:
        target = f"{replica.address}{request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        headers = [(name, value) for name, value in request.headers.items() if name not in HOPS]
        replica.busy += 1
        try:
            asked = self.client.build_request(request.method, target, headers=headers, content=body)
            sending = self.client.send(asked, stream=True)
            found = await (unless_gone(request, sending) if isinstance(body, bytes) else sending)
        except BaseException:
            replica.busy -= 1
            raise
        return _Passed(replica, found)

    async def _each(self, request: Request) -> list[httpx.Response]:
        if not all(replica.address for replica in self.replicas):
            raise Refused(503, "a replica is being started", "server_error")
        headers = {name: request.headers[name] for name in ("authorization", "host") if name in request.headers}
        asked = [self.client.get(f"{one.address}{request.url.path}", headers=headers) for one in self.replicas]
        return await asyncio.gather(*asked)

    async def _all(self, request: Request) -> Response:
        """What the worst of them says."""
        worst = max(await self._each(request), key=lambda response: response.status_code)
        return Response(worst.content, worst.status_code, media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        found = await self._each(request)
        refused = [response for response in found if response.status_code != 200]
        if refused:
            return Response(refused[0].content, refused[0].status_code, media_type="application/json")
        return PlainTextResponse(labelled([response.text for response in found]))


async def read_marked(request: Request, most: int) -> tuple[bytes | AsyncIterator[bytes], str | None]:
    """The body, and what the request belongs to. What a replica reads piece by piece is passed on so."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if request.method == "POST" and kind != "application/json":
        return request.stream(), None
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise Refused(413, f"a body may have at most {most} bytes")
    except TimeoutError:
        raise Refused(408, f"a body must come within {PATIENCE:.0f} seconds") from None
    path = request.url.path
    mark = json.dumps(path.split("/")[3]) if path.startswith("/v1/states/") else mark_of(bytes(body))
    return bytes(body), mark and f"{request.headers.get('authorization', '')} {mark}"


def rank(mark: str, replica: object) -> bytes:
    """The highest one wins, so that few marks move when a replica comes or goes."""
    return hashlib.sha256(f"{mark} {replica}".encode()).digest()


def mark_of(body: bytes) -> str | None:
    """What a request belongs to: its state, else the beginning of its text. None where it has neither."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict):
        return None
    text = asked.get("state") or asked.get("prompt") or asked.get("messages") or asked.get("input")
    return json.dumps(text)[:BEGINNING] if text else None


def labelled(texts: list[str]) -> str:
    """The metrics of all replicas, each line with the number of its replica, those of one name together."""
    lines: dict[str, None] = {}
    groups: dict[str, list[str]] = {}
    for number, text in enumerate(texts):
        name = ""
        for line in text.splitlines():
            if line.startswith("#"):
                name = line.split(" ", 3)[2]
                lines.setdefault(line)
                groups.setdefault(name, [])
            else:
                groups[name].append(re.sub(r"^(\w+)(?:\{(.*)\})? ", rf'\1{{\2,replica="{number}"}} ', line))
    told = []
    for name, own in groups.items():
        told += [line for line in lines if line.split(" ", 3)[2] == name]
        told += [line.replace("{,", "{", 1) for line in own]
    return "\n".join([*told, ""])


def router_of(settings: Settings, replicas: list[Replica], ready: Callable[[str], None]) -> uvicorn.Server:
    router = Router(replicas, settings.max_body)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        yield
        await router.client.aclose()

    app = Starlette(routes=[Route("/{path:path}", router.handle, methods=METHODS)], lifespan=running)
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=settings.drain, limit_concurrency=4096,
    )  # fmt: skip
    return _Announced(config, ready)


class _Announced(uvicorn.Server):
    """Says its address once it listens; ends with 0 at SIGTERM."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: Any) -> None:
        if sig == signal.SIGTERM:
            self.should_exit = True
        else:
            super().handle_exit(sig, frame)


def serve(settings: Settings, count: int, ready: Callable[[str], None]) -> None:
    """Serve by so many replicas until a signal comes, and then until what runs is finished."""
    keys = Keys() if settings.keys is None else Keys.load(settings.keys)
    check_address(settings.host, keys, settings.force)
    lock = claim(settings.states)
    inside = replace(settings, host="127.0.0.1", port=0, claimed=True, called=settings.host)
    replicas = [Replica(inside) for _ in range(count)]
    try:
        for replica in replicas:
            replica.start()
        router_of(settings, replicas, ready).run()
    finally:
        for replica in replicas:
            if hasattr(replica, "process"):
                replica.stop()
        lock.release()
