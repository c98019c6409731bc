"""The application: the routes of the server, over one model and one engine."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from runnel.serve import documents, forecasts
from runnel.serve.answering import Call, unless_gone
from runnel.serve.door import Door
from runnel.serve.errors import Refused, add_handlers
from runnel.serve.jobs import Job, Read
from runnel.serve.keys import Keys
from runnel.serve.plan import prompts_of
from runnel.serve.readings import Averaged
from runnel.serve.service import Service
from runnel.serve.speech import name_of
from runnel.serve.wire import Asked, ChatRequest, CompletionRequest, Text, Tokens
from runnel.serve.writing import answer, chat_of, completion_of

PAGE = Path(__file__).with_name("page.html")
MOST_BODY = 8 << 20
"""Bytes of a body that is read as a whole, unless the server is told otherwise."""


class EmbeddingRequest(Asked):
    input: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=256)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=256)]
    )
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Must be the width of the model.")
    user: str | None = Field(None, max_length=256)


class TokenizeRequest(Asked):
    """A text, which others call a prompt."""

    text: str | None = None
    prompt: str | None = None
    add_special_tokens: Literal[False] | None = None
    model: str | None = None


class DetokenizeRequest(Asked):
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=1 << 20)]
    model: str | None = None


def create_app(
    service: Service, keys: Keys, hosts: frozenset[str] | None = None, most_body: int = MOST_BODY
) -> FastAPI:
    """The application of a server. The engine of the service runs as long as it does. hosts: see `Door`."""

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        service.engine.start()
        yield
        service.engine.drain()
        await run_in_threadpool(service.close)

    app = FastAPI(title="Runnel", lifespan=running, docs_url=None, redoc_url=None)
    app.add_middleware(Door, keys=keys, hosts=hosts, metrics=service.metrics, most=most_body)
    add_handlers(app)
    _add_writing(app, service)
    _add_reading(app, service)
    documents.add_routes(app, service)
    forecasts.add_routes(app)
    _add_watching(app, service)
    return app


def _add_writing(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", response_model=None)
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        return await answer(request, service, completion_of, asked)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        return await answer(request, service, chat_of, asked)


def _add_reading(app: FastAPI, service: Service) -> None:
    served = service.served

    @app.post("/v1/embeddings", response_model=None)
    async def embeddings(asked: EmbeddingRequest, request: Request) -> Response:
        service.check_model(asked.model)
        width = served.model.config.d_model
        if asked.dimensions not in (None, width):
            raise ValueError(f"dimensions must be {width}, the width of the model; got {asked.dimensions}")
        prompts = await run_in_threadpool(prompts_of, served, asked.input)
        vectors = await _embedded(request, service, prompts, asked.user or "")
        as_text = asked.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector) if as_text else vector.tolist()}
            for index, vector in enumerate(vectors)
        ]
        count = sum(map(len, prompts))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse({"object": "list", "data": data, "model": served.name, "usage": usage})

    @app.post("/tokenize")
    async def tokenize(asked: TokenizeRequest) -> dict[str, Any]:
        service.check_model(asked.model)
        text = asked.prompt if asked.text is None else asked.text
        if text is None or None not in (asked.text, asked.prompt):
            raise ValueError("give one of text and prompt")
        tokens = await run_in_threadpool(served.codec.encode, text)
        return {"tokens": tokens, "count": len(tokens)}

    @app.post("/detokenize")
    async def detokenize(asked: DetokenizeRequest) -> dict[str, Any]:
        service.check_model(asked.model)
        text = served.codec.decode(asked.tokens)
        return {"text": text, "prompt": text}

    @app.get("/tokenizer_info")
    async def tokenizer_info() -> dict[str, Any]:
        """What a client needs to know of the tokens before it asks for them."""
        ends = [token for token in sorted(served.eos) if served.codec.encode(name_of(served.codec, token)) == [token]]
        end = name_of(served.codec, ends[0]) if ends else None
        kind = type(served.codec).__name__
        return {"tokenizer_class": kind, "eos_token": end, "bos_token": None, "vocab_size": served.vocab_size}


def _add_watching(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_described(service)]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return _described(service)

    @app.get("/health")
    async def health() -> dict[str, str]:
        if not engine.alive:
            raise Refused(503, "the engine has stopped", "server_error")
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        if engine.draining or not engine.alive:
            raise Refused(503, "the server takes no more requests", "server_error")
        return {"status": "ready"}

    @app.get("/metrics")
    async def numbers() -> Response:
        await run_in_threadpool(service.measure)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    text = PAGE.read_text(encoding="utf-8")
    policy = {"Content-Security-Policy": _policy(text)}

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(text, headers=policy)


def _policy(page: str) -> str:
    """What a browser may run of the page: what stands in it, and nothing else."""
    parts = {"script": "", "style": ""}
    for kind in parts:
        inline = re.findall(f"<{kind}>(.*?)</{kind}>", page, flags=re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inline]
        parts[kind] = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {parts['script']}; style-src {parts['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _described(service: Service) -> dict[str, Any]:
    served, size = service.served, service.engine.size
    config, zero = served.model.config, served.model.init_state(1)
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "runnel",
        "fingerprint": served.fingerprint,
        "pattern": config.pattern,
        "width": config.d_model,
        "vocab_size": served.vocab_size,
        "layers": len(zero.layers),
        "state_bytes": size.base,
        "state_bytes_per_token": size.per_token,
        "drafters": ["none", *served.drafters],
        "drafter": served.drafter,
    }


async def _embedded(
    request: Request, service: Service, prompts: list[list[int]], user: str
) -> list[np.ndarray[Any, Any]]:
    call, found = Call(service.engine), dict[int, np.ndarray[Any, Any]]()

    async def all_read() -> None:
        while events := await call.several():
            for number, event in events:
                assert isinstance(event, Read) and isinstance(event.reading, Averaged)
                found[number] = event.reading.mean().float().numpy()

    try:
        for number, prompt in enumerate(prompts):
            reading = Averaged(prompt, service.served.model.init_state(1))
            deadline = time.monotonic() + service.served.deadline
            call.submit(Job(request.state.key.name, user, reading, call.tell(number), deadline=deadline))
        await unless_gone(request, all_read())
    finally:
        call.close()
    return [found[number] for number in range(len(prompts))]


def _encoded(vector: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
