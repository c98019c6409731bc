"""Errors as clients of OpenAI's API know them. What a user can do something about says so; a bug says nothing."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from runnel.serve.answering import Gone
from runnel.serve.jobs import Busy, Late

log = logging.getLogger("runnel.serve")


class Refused(Exception):
    """An answer with a status of its own."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code


def body(message: str, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def described(error: BaseException) -> tuple[int, dict[str, Any]]:
    """The status and the body of an error."""
    if isinstance(error, Refused):
        return error.status, body(str(error), error.kind, error.code)
    if isinstance(error, Busy):
        return 429, body(str(error), "rate_limit_error", "busy")
    if isinstance(error, Late):
        return 408, body(str(error), "timeout_error", "deadline")
    if isinstance(error, UnicodeError):
        return 400, body("text must be characters that UTF-8 can say", "invalid_request_error")
    if isinstance(error, ValueError):
        return 400, body(" ".join(str(error).split()), "invalid_request_error")
    return 500, body("the server failed; its log says more", "server_error")


def answered(error: BaseException) -> Response:
    status, content = described(error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, Busy) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content, status, headers)


def add_handlers(app: FastAPI) -> None:
    """Every error of a route becomes an answer."""

    async def known(request: Request, error: Exception) -> Response:
        return answered(error)

    async def bug(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.scope["route"].path, exc_info=error)
        return answered(error)

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{where}: {first['msg']}" if where else first["msg"]
        return JSONResponse(
            body(_plain(message)[:500], "invalid_request_error", None, _plain(where)[:100] or None), 400
        )

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        content = body(str(error.detail), "invalid_request_error")
        return JSONResponse(content, error.status_code, error.headers)

    for kind in (Refused, Busy, Late, ValueError):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(Gone, gone)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, bug)


def _plain(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode()
