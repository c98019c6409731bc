"""Plans: what a request means, as decoders and rows. ValueError, in one line, for what cannot be meant."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runnel.decoders import Decoder
from runnel.decoders.sample import Config as Sample
from runnel.decoders.sample import Sample as Sampler
from runnel.processors import (
    Processor,
    frequency_penalty,
    json_schema,
    logit_bias,
    presence_penalty,
    repetition_penalty,
)
from runnel.request import text_of
from runnel.rows import Row, RowDraw
from runnel.serve.mixed import Own
from runnel.serve.served import Served
from runnel.serve.wire import MAX_SEED, NamedTool, ResponseFormat, Sampling, Tool
from runnel.stopping import StopText

KNOWN = 8192
"""Tokens of a prompt that a drafter is told of: more would only keep others waiting."""
ANY_JSON: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class Plan:
    """How the texts of a request are written. stops: the tokens that end them; strings: the strings that do."""

    served: Served
    decoder: Decoder
    seed: int
    n: int
    limit: int
    stops: frozenset[int]
    strings: Sequence[str]
    top: int
    drafter: str

    def rows(self, number: int, prompt: Sequence[int], position: int) -> list[Row]:
        """The rows after the request's prompt of this number, which ends before the position."""
        codec = self.served.codec
        rows = [
            Row(
                index=-1,
                seed=self.seed + number * self.n + sample,
                prompt=prompt,
                position=position,
                limit=self.limit,
                stops=self.stops,
                decoder=self.decoder,
                stop_text=StopText(codec, self.strings) if self.strings else None,
                top=self.top,
            )
            for sample in range(self.n)
        ]
        drafter = None if self.drafter == "none" else self.served.drafters[self.drafter]
        if drafter is not None and self.limit > 1:
            for row in rows:
                row.memory = Own(drafter, drafter.begin(prompt[-KNOWN:], RowDraw(row)))
        return rows


def plan(
    served: Served,
    asked: Sampling,
    limit: int,
    top: int,
    schema: dict[str, Any] | None = None,
    strings: Sequence[str] = (),
) -> Plan:
    """The plan of a request. schema: of the JSON that is written; strings: what ends a text beside `stop`."""
    if limit > served.max_tokens:
        raise ValueError(f"max_tokens must be at most {served.max_tokens} here; got {limit}")
    stops = served.eos
    if schema is not None and not stops:
        stops = served.line_end
        if not stops:
            raise ValueError("response_format needs a model with a token that ends a text; this one has none")
    temperature = 1.0 if asked.temperature is None else asked.temperature
    processors = _processors(served, asked, schema)
    decoder = _decoder(temperature, asked.top_k, asked.top_p, asked.min_p, processors)
    decoder.check(served.vocab_size, stops, limit)
    drafter = served.drafter if asked.drafter is None else asked.drafter
    if drafter != "none" and drafter not in served.drafters:
        raise ValueError(f"drafter must be one of none, {', '.join(served.drafters)}; got {drafter!r}")
    own = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    return Plan(
        served=served,
        decoder=decoder,
        seed=secrets.randbelow(MAX_SEED) if asked.seed is None else asked.seed,
        n=asked.n or 1,
        limit=limit,
        stops=stops,
        strings=[*own, *strings],
        top=top,
        drafter=drafter,
    )


@lru_cache(maxsize=256)
def _plain(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None) -> Decoder:
    return Sampler(Sample(temperature, top_k, top_p, min_p))


def _decoder(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, processors: Sequence[Any]
) -> Decoder:
    """Requests that ask for the same share one, so that their rows are drawn for in one call."""
    if processors:
        return Sampler(Sample(temperature, top_k, top_p, min_p, tuple(processors)))
    return _plain(temperature, top_k, top_p, min_p)


def _processors(served: Served, asked: Sampling, schema: dict[str, Any] | None) -> list[Processor | Any]:
    found: list[Any] = []
    if asked.logit_bias:
        found.append(logit_bias.Config({_token(name): value for name, value in asked.logit_bias.items()}))
    if asked.presence_penalty:
        found.append(presence_penalty.Config(asked.presence_penalty))
    if asked.frequency_penalty:
        found.append(frequency_penalty.Config(asked.frequency_penalty))
    if asked.repetition_penalty is not None:
        found.append(repetition_penalty.Config(asked.repetition_penalty))
    if schema is not None:
        found.append(json_schema.Config(schema, served.codec))
    return found


def _token(name: str) -> int:
    if not (name.isascii() and name.isdigit() and len(name) < 10):
        raise ValueError(f"logit_bias must name tokens by number; got {name[:32]!r}")
    return int(name)


def schema_of(form: ResponseFormat | None) -> dict[str, Any] | None:
    """The JSON schema that a response_format asks for."""
    if form is None or form.type == "text":
        if form is not None and form.json_schema is not None:
            raise ValueError("response_format with a json_schema must be of the type json_schema; got text")
        return None
    if form.type == "json_object":
        if form.json_schema is not None:
            raise ValueError("response_format with a json_schema must be of the type json_schema; got json_object")
        return ANY_JSON
    if form.json_schema is None:
        raise ValueError("response_format json_schema needs a json_schema; got none")
    return form.json_schema.schema_


def schema_of_call(tools: Sequence[Tool], choice: str | NamedTool | None) -> dict[str, Any] | None:
    """The JSON schema of a call that must be made; None where the model may also write text."""
    if choice in (None, "none", "auto"):
        return None
    names = {tool.function.name for tool in tools}
    if isinstance(choice, NamedTool):
        if choice.function.name not in names:
            raise ValueError(f"tool_choice must name one of the tools; got {choice.function.name!r}")
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
    calls = [_call(tool) for tool in tools]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _call(tool: Tool) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": tool.function.name},
            "arguments": tool.function.parameters or ANY_JSON,
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def call_in(text: str, tools: Sequence[Tool]) -> tuple[str, str] | None:
    """The name and the arguments of a tool that a text calls, when it is a call and nothing else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != {"name", "arguments"}:
        return None
    if found["name"] not in {tool.function.name for tool in tools} or not isinstance(found["arguments"], dict):
        return None
    return found["name"], json.dumps(found["arguments"], ensure_ascii=False)


def prompts_of(served: Served, prompt: Any, after: Sequence[int] | None = None) -> list[list[int]]:
    """The prompts of a request, as tokens. after: where they follow a kept state, the tokens that this has not read; a
    text that nothing comes before begins as the codec has it.
    """
    encode = served.codec.begin if after is None else served.codec.encode
    several = isinstance(prompt, list) and not isinstance(prompt[0], int)
    texts = prompt if several else [prompt]
    found = [encode(text) if isinstance(text, str) else text for text in texts]
    return [text_of([*(after or []), *tokens], row, served.vocab_size) for row, tokens in enumerate(found)]
