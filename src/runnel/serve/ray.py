"""A Ray Serve application: replicas on many machines, behind Ray's own proxy, with states in a folder that all see.

    serve run runnel.serve.ray:app run=runs/demo states=/shared/states replicas=4

Ray starts, watches and restarts the processes and carries what they say. A `Front` reads what a request belongs to, as
the router of `runnel serve --replicas` does; `Affine` sends what belongs together to the same `Server`, which has its
states in memory. Each server is the application of `runnel serve`: here its ASGI messages go through Ray.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from ray import serve
from ray._common import tls_utils
from ray.exceptions import RayError
from ray.serve._private import replica
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from runnel.serve.answering import Gone, unless_gone
from runnel.serve.engine import Limits
from runnel.serve.errors import Refused, answered
from runnel.serve.jobs import Busy
from runnel.serve.keys import Keys
from runnel.serve.replicas import AHEAD, HOPS, labelled, rank, read_marked
from runnel.serve.server import Settings, app_of, check_address, share_memory
from runnel.serve.store import Budget, claim, hold

Message = MutableMapping[str, Any]
PINNED, NUMBERED = "=", "#"
"""How a mark begins that names a server: by its id, or by its place among the ids. All others are digests."""
LOOPBACK = "127.0.0.1"
WAIT = 10.0
"""Seconds that a server has to say how it is."""
AT_ONCE = 4096
"""Requests that a process may have at once; an engine refuses more than its queue holds."""
WAITING = 8
"""Messages of an answer, and pieces of a body, that wait for who reads them."""
SCOPE = ("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client")


class Options(BaseModel):
    """What an operator says, as `runnel serve` has it. cpus: of each replica. called: the name that clients know."""

    model_config = ConfigDict(extra="forbid")

    run: Path
    states: Path
    replicas: PositiveInt = 2
    cpus: float = Field(1.0, gt=0)
    called: str = "localhost"
    name: str | None = None
    weights: str | None = None
    eos: int | None = None
    drafter: str = "auto"
    keys: Path | None = None
    force: bool = False
    rows: PositiveInt = 64
    state_memory: PositiveInt = 1024
    queue: PositiveInt = 256
    memory: PositiveInt = 256
    disk: PositiveInt = 4096
    stride: int = Field(256, ge=0)
    chunk: PositiveInt = 128
    max_tokens: PositiveInt = 32768
    deadline: float = Field(600.0, gt=0)

    def settings(self) -> Settings:
        return Settings(
            run=self.run.resolve(),
            states=self.states.resolve(),
            name=self.name,
            weights=self.weights,
            eos=() if self.eos is None else (self.eos,),
            drafter=self.drafter,
            keys=None if self.keys is None else self.keys.resolve(),
            force=self.force,
            limits=Limits.asked(self.rows, self.state_memory, self.queue, self.chunk, self.keys),
            max_tokens=self.max_tokens,
            deadline=self.deadline,
            budget=Budget(self.memory << 20, self.disk << 20),
            stride=self.stride,
            claimed=True,
            called=self.called,
            journal="delete",
        )


def app(asked: Mapping[str, Any]) -> serve.Application:
    """The application, from the words of `serve run` or a configuration file. See `Options`."""
    options = Options.model_validate(dict(asked))
    settings = options.settings()
    claim(settings.states, settings.journal).release()  # files and index agree before anybody reads them
    front = serve.deployment(max_ongoing_requests=AT_ONCE, ray_actor_options={"num_cpus": 0})(Front)
    servers = serve.deployment(
        max_ongoing_requests=AT_ONCE,
        graceful_shutdown_timeout_s=settings.drain,
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": options.cpus},
        request_router_config=RequestRouterConfig(request_router_class="runnel.serve.ray:Affine"),
    )(Server)
    return front.bind(settings, options.replicas, servers.bind(settings))


class Affine(RequestRouter):
    """What belongs together goes to the same server, unless it has more to do than others."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        assert pending_request is not None
        mark = pending_request.metadata.session_id
        pending_request.routing_context.should_backoff = True  # wait before the next try, also where nobody is left
        named = sorted(candidate_replicas, key=lambda one: one.replica_id.unique_id)
        if mark.startswith(PINNED):
            return [[one for one in named if one.replica_id.unique_id == mark[1:]]]
        if mark.startswith(NUMBERED):
            return [named[int(mark[1:]) :][:1]]
        busy = [self.replica_queue_len_cache.get(one.replica_id) or 0 for one in named]
        best = preferred([rank(mark, one.replica_id.unique_id) for one in named] if mark else None, busy)
        return [[named[place]] for place in best]


def preferred(ranks: list[bytes] | None, busy: list[int]) -> list[int]:
    """Places of servers, the best first. ranks: how much a request belongs to each; None where it does to none."""
    by_work = sorted(range(len(busy)), key=lambda place: busy[place])
    if ranks is None or not busy:
        return by_work
    own = max(by_work, key=lambda place: ranks[place])
    return by_work if busy[own] > busy[by_work[0]] + AHEAD else [own, *(place for place in by_work if place != own)]


class Server:
    """One engine: the application of `runnel serve`, whose requests and answers come as ASGI messages."""

    def __init__(self, settings: Settings) -> None:
        stay_inside()
        share_memory()
        self.app, self.open = app_of(settings), dict[str, asyncio.Queue[Message]]()
        self.service = self.app.state.service
        self.service.engine.start()
        self.id = serve.get_replica_context().replica_id.unique_id

    def __del__(self) -> None:
        self.service.engine.drain()
        self.service.close()

    def check_health(self) -> None:
        """Asked by Ray, which starts another server where this fails."""
        if not self.service.engine.alive:
            raise RuntimeError("the engine has stopped")

    async def answer(self, scope: Scope, body: bytes | None, call: str) -> AsyncIterator[Message]:
        """The messages of an answer; the first one says whose it is. A body that is None comes by `take`."""
        out, read = asyncio.Queue[Message | None](WAITING), asyncio.Queue[Message](WAITING)
        self.open[call] = read
        if body is not None:
            read.put_nowait(_piece(body, more=False))
        running = asyncio.create_task(self._run(scope, read, out))
        try:
            yield {"server": self.id}
            while (message := await out.get()) is not None:
                yield message
        finally:
            del self.open[call]
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def _run(self, scope: Scope, read: asyncio.Queue[Message], out: asyncio.Queue[Message | None]) -> None:
        with suppress(Exception):  # it has been answered, and logged
            await self.app(scope, read.get, out.put)
        await out.put(None)

    async def take(self, call: str, piece: bytes, more: bool) -> None:
        """A piece of the body of a request that is being answered; waits while there are many."""
        if call in self.open:
            await self.open[call].put(_piece(piece, more))


def stay_inside() -> None:
    """A replica opens a port to everybody, wherever Ray itself listens: where that is loopback, so does it."""
    if ray.util.get_node_ip_address() == LOOPBACK:
        add_port = tls_utils.add_port_to_grpc_server
        replica.add_port_to_grpc_server = lambda server, address: add_port(server, f"{LOOPBACK}:0")


def _piece(body: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Front:
    """What clients speak to, through Ray's proxy. It holds the folder of states, which no other server may use."""

    def __init__(self, settings: Settings, count: int, servers: DeploymentHandle) -> None:
        stay_inside()
        self.settings, self.count, self.servers = settings, count, servers
        self.keys = Keys() if settings.keys is None else Keys.load(settings.keys)
        self.lock = hold(settings.states, wait=WAIT)  # a front that was here before may still be ending

    async def __call__(self, request: Request) -> Response:
        try:
            check_caller(request, self.keys, self.settings.force)
            if request.url.path in ("/health", "/ready", "/metrics"):
                return await self._all(request)
            body, mark = await read_marked(request, self.settings.max_body)
            return await self._forward(request, mark and hashlib.sha256(mark.encode()).hexdigest(), body)
        except (Refused, Busy) as error:
            return answered(error)
        except (ClientDisconnect, Gone):
            return Response(status_code=499)
        except (RayError, RayServeException):
            return answered(Refused(502, "the server that this belonged to has ended; ask again", "server_error"))

    async def _forward(self, request: Request, mark: str | None, body: bytes | AsyncIterator[bytes]) -> Response:
        call = secrets.token_hex(8)
        if isinstance(body, bytes):
            answer = _Answer(self.servers, mark, (_scope(request), body, call), None)
            await unless_gone(request, answer.begin())
        else:
            answer = _Answer(self.servers, mark, (_scope(request), None, call), body)
            await answer.begin()
        return answer

    async def _all(self, request: Request) -> Response:
        """What the worst of them says; the metrics of all of them."""
        found = [await self._ask(request, number) for number in range(self.count)]  # Ray mixes up calls at one time
        worst = max(found, key=lambda response: response.status_code)
        if request.url.path != "/metrics" or worst.status_code != 200:
            return worst
        return PlainTextResponse(labelled([bytes(response.body).decode() for response in found]))

    async def _ask(self, request: Request, number: int) -> Response:
        answer = _Answer(self.servers, f"{NUMBERED}{number}", (_scope(request), b"", secrets.token_hex(8)), None)
        try:
            async with asyncio.timeout(WAIT):
                await answer.begin()
                body = b"".join([piece async for piece in answer.bodies])
                return Response(body, answer.status_code, media_type="application/json")
        except (TimeoutError, RayError, RayServeException):
            return answered(Refused(503, "a server is being started", "server_error"))
        finally:
            answer.end()


def check_caller(request: Request, keys: Keys, force: bool) -> None:
    """Ray's proxy may listen where others reach it: without keys they are not served."""
    try:
        check_address("" if request.client is None else request.client.host, keys, force)
    except ValueError:
        raise Refused(403, "without keys this server answers its own machine only") from None


def _scope(request: Request) -> Scope:
    return {**{name: request.scope.get(name) for name in SCOPE}, "root_path": "", "server": None}


class _Answer(StreamingResponse):
    """What a server answers, as it comes. Whatever becomes of the client, the server is rid of it."""

    def __init__(
        self, servers: DeploymentHandle, mark: str | None, asked: tuple[Scope, bytes | None, str], pieces: Any
    ) -> None:
        self.bodies = self._bodies()
        super().__init__(self.bodies)
        self.servers, self.call, self.pieces = servers, asked[2], pieces
        self.feeding: asyncio.Task[None] | None = None
        self.messages = servers.options(stream=True, session_id=mark or "").answer.remote(*asked)

    async def begin(self) -> None:
        """Until status and headers are known."""
        try:
            whose = await anext(self.messages)
            if self.pieces is not None:
                self.feeding = asyncio.create_task(self._feed(whose["server"]))
            start = await anext(self.messages)
        except BaseException:
            self.end()
            raise
        self.status_code = start["status"]
        self.raw_headers = [(name, value) for name, value in start["headers"] if name.decode() not in HOPS]

    async def _feed(self, server: str) -> None:
        own = self.servers.options(session_id=f"{PINNED}{server}")
        try:
            async for piece in self.pieces:
                await own.take.remote(self.call, piece, True)
            await own.take.remote(self.call, b"", False)
        except ClientDisconnect:
            self.messages.cancel()

    async def _bodies(self) -> AsyncIterator[bytes]:
        async for message in self.messages:
            yield message["body"]

    def end(self) -> None:
        self.messages.cancel()
        if self.feeding is not None:
            self.feeding.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.end()
