"""What is served: a model with its codec, its drafters and its way of writing a conversation."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from runnel.codecs import Codec
from runnel.codecs.tokenizer import templated
from runnel.drafters import Drafter
from runnel.model import TextModel
from runnel.serve.wire import Message, Tool


@dataclass(frozen=True)
class Served:
    """name: of the model, as clients call it. eos: the tokens that end a text; those of the codec where none are given.
    drafters: what rows may be drafted with, by name; drafter: what they are, where a request names none. max_tokens:
    most tokens that a request may ask for. deadline: seconds that it may take.
    """

    name: str
    model: TextModel
    codec: Codec
    eos: frozenset[int] = frozenset()
    drafters: Mapping[str, Drafter] = field(default_factory=dict)
    drafter: str = "none"
    max_tokens: int = 32768
    deadline: float = 600.0
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "eos", self.eos or self.codec.ends)

    @property
    def vocab_size(self) -> int:
        assert self.model.config.vocab_size is not None
        return self.model.config.vocab_size

    @cached_property
    def fingerprint(self) -> str:
        return self.model.fingerprint()

    @property
    def turns(self) -> Sequence[str]:
        """What would begin somebody else's turn; nothing does where a template's own tokens end an answer."""
        return STOPS if templated(self.codec) is None else ()

    @property
    def line_end(self) -> frozenset[int]:
        """The token that is a line's end and nothing else: where there is no eos, it ends what is on one line."""
        return frozenset(token for token, piece in enumerate(self.codec.token_bytes) if piece == b"\n")


STOPS = ("\nuser:", "\nsystem:", "\ntool:")


def prompt_of(
    codec: Codec, messages: Sequence[Message], tools: Sequence[Tool] | None, go_on: bool, after: Sequence[int] | None
) -> list[int]:
    """A conversation as tokens, by the checkpoint's own template or else as lines.

    go_on: the last message is the beginning of the answer, to the letter. after: of messages that follow a kept state,
    the tokens that this one has not read; None where nothing comes before.
    """
    template = templated(codec)
    if template is None:
        text = conversation(messages, tools, go_on)
        return codec.begin(text) if after is None else [*after, *codec.encode(f"\n{text}")]
    told = [_told(message) for message in messages[: len(messages) - go_on]]
    offered = None if tools is None else [tool.model_dump(exclude_none=True) for tool in tools]
    begun = codec.encode(_said(messages[-1])) if go_on else []
    if after is None:
        return [*template.chat(told, tools=offered), *begun]
    return [*after, *template.turn(told, after[0] if after else None), *begun]


def _told(message: Message) -> dict[str, Any]:
    """A message as templates take it: a call's arguments are an object."""
    told = {**message.model_dump(exclude_none=True), "content": _said(message)}
    for call in told.get("tool_calls", []):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return told


def conversation(messages: Sequence[Message], tools: Sequence[Tool] | None = None, go_on: bool = False) -> str:
    """Messages as a text that a model without a template of its own goes on with: a line `role: content` for each.

    go_on: the last of them is the beginning of the answer, to the letter.
    """
    lines = []
    if tools:
        offered = [tool.function.model_dump_json(exclude_none=True) for tool in tools]
        lines.append('system: Functions that may be called by writing {"name": ..., "arguments": ...}:')
        lines += offered
    for message in messages[: len(messages) - go_on]:
        said = _said(message)
        calls = [
            f'{{"name":"{call.function.name}","arguments":{call.function.arguments}}}'
            for call in message.tool_calls or []
        ]
        who = message.role if message.name is None else f"{message.role} ({message.name})"
        lines.append(f"{who}: {' '.join([said, *calls]).strip()}")
    begun = f" {_said(messages[-1])}" if go_on else ""
    return "\n".join([*lines, f"assistant:{begun}"])


def _said(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content or [])
