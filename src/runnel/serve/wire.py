"""What may be asked: the bodies of requests. What is not named here is refused, never ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_SEED = 2**62
"""Seeds are below it, so that those of several texts count up from one."""
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


class Asked(BaseModel):
    """A body: unknown fields and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Asked):
    include_usage: bool = False


class Sampling(Asked):
    """What the two endpoints that write have in common. From top_k on they are Runnel's own."""

    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=0, lt=MAX_SEED)
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    user: str | None = Field(None, max_length=256, description="Users of one key take turns in the queue.")
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    state: str | None = Field(None, max_length=64, description="A kept state that the prompt follows.")
    save_state: bool | None = Field(None, description="Keep the state after every text, and tell its id.")
    drafter: str | None = Field(None, max_length=64, description="One of the server's drafters, or 'none'.")
    timeout: float | None = Field(None, gt=0, description="Seconds after which the request fails.")


class JsonSchema(Asked):
    name: str = Field("answer", max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema")
    strict: Literal[True] | None = None


class ResponseFormat(Asked):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StateRequest(Asked):
    input: str | Tokens
    model: str | None = None
    state: str | None = Field(None, max_length=64, description="A kept state that the input follows.")
    name: str | None = Field(None, max_length=256)
    timeout: float | None = Field(None, gt=0)


class CompletionRequest(Sampling):
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=256)]
        | Tokens
        | Annotated[list[Tokens], Field(min_length=1, max_length=256)]
    )
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=128, description="Must equal n.")
    response_format: ResponseFormat | None = None


class Part(Asked):
    type: Literal["text"]
    text: str


class Function(Asked):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Asked):
    type: Literal["function"]
    function: Function


class CalledFunction(Asked):
    name: str
    arguments: str


class ToolCall(Asked):
    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(Asked):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = Field(None, max_length=64)
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: None = None


class NamedFunction(Asked):
    name: str


class NamedTool(Asked):
    type: Literal["function"]
    function: NamedFunction


class ChatRequest(Sampling):
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: Literal[False] | None = None
    continue_final_message: bool | None = Field(None, description="Go on with the last message, the assistant's own.")
