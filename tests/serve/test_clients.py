"""The unmodified `openai` client against the server: what it sends is understood, what it reads is there."""

import asyncio
import json
import math
from itertools import pairwise

import openai
import pytest

import runnel
from runnel.processors import frequency_penalty, logit_bias, presence_penalty, repetition_penalty
from tests.serve.support import alone

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {**SCHEMA}}}
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def api(client):
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_models(api):
    (model,) = api.models.list().data
    assert model.id == "small"
    assert api.models.retrieve("small").owned_by == "runnel"
    with pytest.raises(openai.NotFoundError):
        api.models.retrieve("gpt-4")


def test_completions_with_everything(api, model):
    found = api.completions.create(
        model="small", prompt="abc", max_tokens=20, temperature=0.7, top_p=0.9, n=2, seed=3, logprobs=3, echo=True,
        presence_penalty=0.3, frequency_penalty=0.2, logit_bias={"65": 4, "66": -100}, user="me",
        extra_body={"min_p": 0.01, "top_k": 50, "repetition_penalty": 1.1, "drafter": "suffix"},
    )  # fmt: skip
    own = [
        logit_bias.Config({65: 4.0, 66: -100.0}),
        presence_penalty.Config(0.3),
        frequency_penalty.Config(0.2),
        repetition_penalty.Config(1.1),
    ]
    options = {"temperature": 0.7, "top_p": 0.9, "min_p": 0.01, "top_k": 50, "processors": own}
    for i, choice in enumerate(found.choices):
        text, logprobs = alone(model, "abc", 20, 3 + i, **options)
        assert choice.text == "abc" + text
        assert choice.logprobs.token_logprobs[0] is None
        assert choice.logprobs.token_logprobs[3:] == logprobs
        assert all(len(top) in (3, 4) for top in choice.logprobs.top_logprobs[1:])
        assert choice.finish_reason == "length"
    assert found.usage.completion_tokens == 40
    assert "".join(found.choices[0].logprobs.tokens[:3]) == "abc"


def test_a_text_is_scored_as_in_process(api, model):
    text = "a text that somebody else wrote"
    found = api.completions.create(model="small", prompt=text, max_tokens=0, echo=True, logprobs=1)
    expected = runnel.score(model, [list(text.encode())]).logprobs[0]
    assert found.choices[0].text == text
    assert found.choices[0].logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-5)


def test_a_stop_string_ends_a_text_and_its_logprobs(api):
    whole = api.completions.create(model="small", prompt="abc", max_tokens=60, seed=1, logprobs=0).choices[0]
    stop = next(a + b for a, b in pairwise(whole.text[10:]) if (a + b).isascii())
    cut = api.completions.create(model="small", prompt="abc", max_tokens=60, seed=1, logprobs=0, stop=[stop]).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.logprobs.tokens == whole.logprobs.tokens[: len(cut.logprobs.tokens)]


def test_chat_and_its_stream(api):
    asked = {"model": "small", "messages": HELLO, "max_completion_tokens": 30, "seed": 8, "n": 2}
    asked |= {"logprobs": True, "top_logprobs": 2}
    whole = api.chat.completions.create(**asked)
    texts, probabilities, reasons, usage = ["", ""], [[], []], [None, None], None
    for chunk in api.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            probabilities[choice.index] += choice.logprobs.content if choice.logprobs else []
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage.total_tokens == whole.usage.total_tokens
    for found, choice in zip(probabilities, whole.choices, strict=True):
        assert [one.logprob for one in found] == [one.logprob for one in choice.logprobs.content]
        assert all(len(one.top_logprobs) == 2 and math.isfinite(one.logprob) for one in found)
        assert (
            bytes(b for one in found for b in one.bytes)
            .decode("utf-8", "replace")
            .removeprefix(" ")
            .startswith(choice.message.content[:1])
        )


def test_an_answer_that_was_begun_is_gone_on_with(api):
    begun = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Well, "}]
    asked = {"model": "small", "max_tokens": 20, "seed": 5}
    found = api.chat.completions.create(messages=begun, **asked, extra_body={"continue_final_message": True})
    stops = ["\nuser:", "\nsystem:", "\ntool:"]
    plain = api.completions.create(prompt="user: Hello!\nassistant: Well, ", stop=stops, **asked)
    assert found.choices[0].message.content == plain.choices[0].text
    for other in ({"messages": begun[:1]}, {"messages": begun, "tools": [TOOL]}):
        with pytest.raises(openai.BadRequestError, match="continue_final_message needs"):
            api.chat.completions.create(**other, **asked, extra_body={"continue_final_message": True})


def test_tokens_are_told_as_other_servers_tell_them(client):
    found = client.post("/tokenize", json={"prompt": "abc", "add_special_tokens": False}).json()
    assert found == client.post("/tokenize", json={"text": "abc"}).json() == {"tokens": [97, 98, 99], "count": 3}
    assert client.post("/detokenize", json={"tokens": [97, 98]}).json() == {"text": "ab", "prompt": "ab"}
    assert client.get("/tokenizer_info").json()["vocab_size"] == 256
    for wrong in ({}, {"text": "a", "prompt": "a"}, {"text": "a", "add_special_tokens": True}):
        assert client.post("/tokenize", json=wrong).status_code == 400


def test_json_schema_with_speculation_and_logprobs(api):
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    for drafter in ("none", "auto", "suffix"):
        choice = api.chat.completions.create(
            model="small", messages=HELLO, seed=1, response_format=form, max_tokens=200, logprobs=True, top_logprobs=1,
            extra_body={"drafter": drafter},
        ).choices[0]  # fmt: skip
        found = json.loads(choice.message.content)
        assert set(found) == {"name", "age"}
        assert choice.finish_reason == "stop"
        assert bytes(b for one in choice.logprobs.content for b in one.bytes).decode() == choice.message.content
        if drafter == "none":
            expected = choice.message.content
        assert choice.message.content == expected
    found = api.completions.create(
        model="small", prompt="x", max_tokens=300, seed=4, extra_body={"response_format": {"type": "json_object"}}
    )
    if found.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(found.choices[0].text), dict)


def test_a_tool_is_called(api):
    for choice in ("required", {"type": "function", "function": {"name": "look_up"}}):
        asked = {"model": "small", "messages": HELLO, "tools": [TOOL], "tool_choice": choice, "seed": 2}
        found = api.chat.completions.create(**asked, max_tokens=300).choices[0]
        assert found.finish_reason == "tool_calls"
        (call,) = found.message.tool_calls
        assert call.function.name == "look_up"
        assert set(json.loads(call.function.arguments)) == {"name", "age"}
        chunks = [chunk.choices[0] for chunk in api.chat.completions.create(**asked, max_tokens=300, stream=True)]
        assert chunks[-1].finish_reason == "tool_calls"
        assert chunks[-1].delta.tool_calls[0].function.arguments == call.function.arguments
    answer = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "content": "nothing", "tool_call_id": call.id},
    ]
    found = api.chat.completions.create(model="small", messages=answer, tools=[TOOL], tool_choice="none", max_tokens=3)
    assert found.choices[0].message.content


def test_embeddings(api):
    found = api.embeddings.create(model="small", input=["abc", "abd", "something else"]).data
    floats = api.embeddings.create(model="small", input="abc", encoding_format="float").data[0].embedding
    assert found[0].embedding == pytest.approx(floats)
    assert math.hypot(*floats) == pytest.approx(1, abs=1e-6)

    def likeness(a, b):
        return sum(x * y for x, y in zip(a.embedding, b.embedding, strict=True))

    assert likeness(found[0], found[1]) > likeness(found[0], found[2])
    assert len(floats) == 16


def test_many_at_once_with_the_async_client(client, model):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0) as api:

            async def one(i):
                asked = {"model": "small", "prompt": f"number {i}", "max_tokens": 20, "seed": i}
                stream = await api.completions.create(**asked, stream=True)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return await asyncio.gather(*[one(i) for i in range(12)])

    texts = asyncio.run(ask())
    assert texts == [alone(model, f"number {i}", 20, i)[0] for i in range(12)]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("completions", {"temperature": -1}),
        ("completions", {"top_p": 0}),
        ("completions", {"top_p": float("nan")}),
        ("completions", {"n": 0}),
        ("completions", {"n": 2, "best_of": 3}),
        ("completions", {"suffix": "x"}),
        ("completions", {"logprobs": 21}),
        ("completions", {"max_tokens": 10**9}),
        ("completions", {"max_tokens": 10**400}),
        ("completions", {"logit_bias": {"256": 1}}),
        ("completions", {"logit_bias": {"a": 1}}),
        ("completions", {"logit_bias": {"1": 101}}),
        ("completions", {"stop": ""}),
        ("completions", {"stop": ["a"] * 17}),
        ("completions", {"prompt": ""}),
        ("completions", {"prompt": [256]}),
        ("completions", {"prompt": []}),
        ("completions", {"prompt": "\ud800"}),
        ("completions", {"seed": -1}),
        ("completions", {"drafter": "draft_model"}),
        ("completions", {"drafter": "/etc/passwd"}),
        ("completions", {"stream_options": {"include_usage": True}}),
        ("completions", {"presence_penalty": 3}),
        ("completions", {"response_format": {"type": "json_schema"}}),
        ("completions", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}}),
        ("completions", {"what": 1}),
        ("chat/completions", {"messages": []}),
        ("chat/completions", {"messages": [{"role": "wizard", "content": "x"}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("chat/completions", {"top_logprobs": 2}),
        ("chat/completions", {"tool_choice": "required"}),
        ("chat/completions", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
        ("chat/completions", {"max_tokens": 3, "max_completion_tokens": 3}),
        ("chat/completions", {"parallel_tool_calls": True}),
        ("chat/completions", {"service_tier": "auto"}),
        ("embeddings", {"input": "x", "dimensions": 3}),
        ("embeddings", {"input": []}),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(client, path, change):
    asked = {"completions": {"prompt": "x"}, "chat/completions": {"messages": HELLO}, "embeddings": {}}[path]
    body = json.dumps({**asked, **change}).encode()
    found = client.post(f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400, found.text
    assert found.json()["error"]["type"] == "invalid_request_error"
    assert "\n" not in found.json()["error"]["message"]


def test_tokens_and_back(client):
    found = client.post("/tokenize", json={"text": "añ"}).json()
    assert found == {"tokens": list("añ".encode()), "count": 3}
    told = client.post("/detokenize", json={"tokens": found["tokens"]}).json()
    assert told == {"text": "añ", "prompt": "añ"}  # both names that servers tell it by
    assert client.post("/detokenize", json={"tokens": [256]}).status_code == 400


def test_the_numbers_are_there(client):
    client.post("/v1/completions", json={"prompt": "abcabcabcabc", "max_tokens": 60, "drafter": "auto"})
    found = client.get("/metrics").text
    for name in (
        "time_to_first_token_seconds", "inter_token_seconds", "queue_jobs", "batch_rows", "state_bytes", "kept_bytes",
        "prefix_lookups_total", "drafted_total", "accepted_total", "tokens_written_total", "requests_total",
    ):  # fmt: skip
        assert f"runnel_{name}" in found
