"""The server: what a command line says becomes a model, an engine and an application on an address."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

import runnel
from runnel import catalog, codecs, native
from runnel.drafters import Drafter
from runnel.model import Model
from runnel.policies import goodput
from runnel.serve.app import MOST_BODY, create_app
from runnel.serve.engine import Engine, Limits
from runnel.serve.keys import Keys
from runnel.serve.metrics import Metrics
from runnel.serve.prefixes import Prefixes
from runnel.serve.served import Served
from runnel.serve.service import Service
from runnel.serve.store import WAL, Budget, Store

M_ARENA_MAX = -8
"""A parameter of glibc's mallopt."""
DRAFTERS = ("auto", "suffix", "prompt_lookup")
"""What every server drafts with, where a request or the server asks for it."""


@dataclass(frozen=True)
class Settings:
    """What an operator decides. states: the folder of kept states; stride: tokens between those of a prompt that is
    read. weights: of the native engine, or "torch". force: bind publicly without a key. claimed: the folder of states
    belongs to a router already, which others call by the host `called`. journal: see `Store`.
    """

    run: Path
    states: Path
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    weights: str | None = None
    eos: tuple[int, ...] = ()
    drafter: str = "auto"
    keys: Path | None = None
    force: bool = False
    limits: Limits = field(default_factory=Limits)
    max_tokens: int = 32768
    deadline: float = 600.0
    max_body: int = MOST_BODY
    budget: Budget = field(default_factory=Budget)
    stride: int = 256
    drain: int = 30
    claimed: bool = False
    called: str | None = None
    journal: str = WAL


def check_address(host: str, keys: Keys, force: bool) -> None:
    """ValueError for an address that others can reach when there is no key."""
    if keys or force or host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError(f"--host {host} can be reached by others: give --keys FILE, or --force to serve everybody")


def model_of(run: Path, weights: str | None) -> Any:
    """The model of a run by the native engine; in PyTorch where that was not built, or with weights "torch"."""
    model: Model = runnel.load(run).eval()
    if weights == "torch" or (weights is None and not native.available()):
        return model
    return runnel.pack(model, weights or "f32")


def served_of(settings: Settings) -> Served:
    model = model_of(settings.run, settings.weights)
    drafters = {name: catalog.make("drafters", Drafter, name) for name in DRAFTERS}
    if settings.drafter != "none" and settings.drafter not in drafters:
        raise ValueError(f"--drafter must be one of none, {', '.join(drafters)}; got {settings.drafter!r}")
    return Served(
        name=settings.name or settings.run.resolve().name,
        model=model,
        codec=codecs.load(settings.run),
        eos=frozenset(settings.eos),
        drafters=drafters,
        drafter=settings.drafter,
        max_tokens=settings.max_tokens,
        deadline=settings.deadline,
    )


def app_of(settings: Settings) -> Any:
    """The application that the settings describe, its engine not yet started."""
    keys = Keys() if settings.keys is None else Keys.load(settings.keys)
    check_address(settings.host, keys, settings.force)
    served, metrics = served_of(settings), Metrics()
    policy = goodput.Config.measured(served.model)
    engine = Engine(served.model, settings.limits, metrics, list(served.drafters.values()), policy)
    store = Store(settings.states, served.model, settings.budget, settings.claimed, settings.journal)
    service = Service(served, engine, store, Prefixes(store, metrics, settings.stride), metrics)
    own = {"localhost", "127.0.0.1", "::1", settings.host, settings.called or settings.host}
    hosts = None if keys or settings.force else frozenset(own)
    app = create_app(service, keys, hosts, settings.max_body)
    app.state.service = service
    return app


class Draining(uvicorn.Server):
    """Tells the engine at the first signal to take no more; what runs is finished before the process ends."""

    def __init__(self, config: uvicorn.Config, service: Service, ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self.service, self.ready = service, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self.ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.service.engine.drain()
        if sig == signal.SIGTERM:
            self.should_exit = True  # what it asks for is done; the process ends with 0
        else:
            super().handle_exit(sig, frame)


def server_of(settings: Settings, ready: Callable[[str], None]) -> Draining:
    """A server that is not yet running. ready: called with its address once requests are taken."""
    app = app_of(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain,
        limit_concurrency=4096,
    )
    return Draining(config, app.state.service, ready)


def share_memory() -> None:
    """What one thread frees, others may use: glibc would keep it apart for each, and grow by that."""
    with contextlib.suppress(OSError, AttributeError):  # another library than glibc's
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until a signal comes, and then until what runs is finished, or `drain` seconds have passed."""
    share_memory()
    server_of(settings, ready).run()
