"""The door: what every request passes before a route sees it. Who asks, how large and how deep a body is, and the
headers that tell a browser to trust nothing else. Nothing of a body is ever logged.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runnel.serve.errors import Refused, answered
from runnel.serve.jobs import Busy
from runnel.serve.keys import Key, Keys
from runnel.serve.metrics import Metrics

OPEN = frozenset({"/", "/health", "/ready"})
"""Paths that ask for no key."""
STREAMING, STREAMED = "/v1/states", ("application/octet-stream", "text/plain")
"""The path that reads bodies of these types piece by piece, and limits them itself."""
PATIENCE = 60.0
"""Seconds that a client has to send a body."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(rb"[^\[\]{}]+")


class Door:
    """An ASGI application around another one. hosts: the names that the server may be called by, where no key keeps the
    pages of others from asking; None for any. most: bytes of a body that is read as a whole; deepest: of its JSON.
    """

    def __init__(
        self, app: ASGIApp, keys: Keys, hosts: frozenset[str] | None, metrics: Metrics, most: int, deepest: int = 32
    ) -> None:
        self.app, self.keys, self.hosts, self.metrics = app, keys, hosts, metrics
        self.most, self.deepest = most, deepest
        self.inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._enter(scope, receive, sent)
        finally:
            route = scope.get("route")
            self.metrics.requests.labels(getattr(route, "path", "other"), status or 499).inc()

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        key = self.keys.holder(_presented(headers))
        try:
            self._check_origin(headers)
            if key is None:
                if scope["path"] not in OPEN:
                    raise Refused(401, "a valid API key is required: Authorization: Bearer KEY", code="invalid_api_key")
                key = Key("visitor", "0" * 64)
            if self.inside[key.name] >= key.requests:
                raise Busy(f"this key may have {key.requests} requests at once", 1)
        except (Refused, Busy) as error:
            await answered(error)(scope, receive, send)
            return
        scope.setdefault("state", {}).update(key=key)
        self.inside[key.name] += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self.inside[key.name] -= 1
            if not self.inside[key.name]:
                del self.inside[key.name]

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(scope, receive)
        except Refused as error:
            await answered(error)(scope, receive, send)
            return
        await self.app(scope, receive if body is None else _replayed(body, receive), send)

    def _check_origin(self, headers: Headers) -> None:
        """Refused for what a browser sends on behalf of somebody else's page, also under a name that leads here."""
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name, asking = urlsplit(f"//{host}").hostname, None if origin is None else urlsplit(origin).netloc
        except ValueError:
            raise Refused(400, "the headers Host and Origin must be addresses") from None
        if self.hosts is not None and host and name not in self.hosts:
            raise Refused(403, "without keys this server answers to the names of this machine only")
        if headers.get("sec-fetch-site") == "cross-site" or asking not in (None, host):
            raise Refused(403, "pages of other servers may not ask")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None where there is none to look at."""
        headers = Headers(scope=scope)
        if scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS") and not _announced(headers):
            return None
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if scope["path"] == STREAMING and kind in STREAMED:
            return None
        too_large = Refused(413, f"a body may have at most {self.most} bytes")
        if _announced(headers) > self.most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Refused(400, "the body ended early")
                    body += message.get("body", b"")
                    if len(body) > self.most:
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(408, f"a body must come within {PATIENCE:.0f} seconds") from None
        if depth(bytes(body)) > self.deepest:
            raise Refused(400, f"JSON may be nested {self.deepest} deep at most")
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused(400, f"the body must be UTF-8; byte {error.start} is not") from None
        return bytes(body)


def _presented(headers: Headers) -> str | None:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 16 else 0


def depth(body: bytes) -> int:
    """How deep JSON is nested, without reading it."""
    brackets = np.frombuffer(_BRACKETS.sub(b"", _STRINGS.sub(b"", body)), dtype=np.uint8)
    steps = np.where(np.isin(brackets, np.frombuffer(b"[{", dtype=np.uint8)), 1, -1)
    return int(steps.cumsum().max(initial=0))


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel on which the body comes, and then what comes on the other one."""
    told: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return told.pop() if told else await receive()

    return replay
