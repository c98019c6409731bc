"""Models with a tokenizer of their own: its template writes conversations, its tokens begin and end texts."""

import io
import json
import sys

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import runnel
from runnel import codecs
from runnel.codecs.tokenizer import Checkpoint
from tests.cli.conftest import in_process  # noqa: F401
from tests.serve.conftest import serving
from tests.serve.support import completion

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
START, END, BEGIN = 256, 257, 258
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """As `runnel import` leaves it; the model likes to end its answers."""
    folder = tmp_path_factory.mktemp("runs") / "templated"
    tokenizer = Tokenizer(
        models.BPE({letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|start|>", "<|end|>", "<|begin|>"])
    tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $0", special_tokens=[("<|begin|>", BEGIN)])
    model = runnel.build("mingru, attention(window=24)", vocab_size=260, d_model=16, seed=4)
    with torch.no_grad():
        model.head.logits.weight.mul_(6.0)
        model.head.logits.weight[END] = 6 * model.head.logits.weight[:START].abs().max(0).values
    runnel.save(model, folder)
    Checkpoint(tokenizer, 260, {"eos_token": "<|end|>", "chat_template": TEMPLATE}).save(folder)
    return folder


@pytest.fixture(scope="module")
def templated(run):
    with serving(run, weights="torch") as client:
        yield client


def answered(run, prompt, count=24, **options):
    model, codec = runnel.load(run), codecs.load(run)
    found = runnel.generate(model, [prompt], count, eos=codec.ends, temperature=0, **options)
    words = [token for token in found.tokens[0] if token not in codec.ends]
    return codec.decode(words), found


def test_a_conversation_is_what_the_template_makes_of_it(run, templated):
    codec = codecs.load(run)
    text, found = answered(run, codec.chat(HELLO))
    asked = {"messages": HELLO, "max_tokens": 24, "temperature": 0}
    (choice,) = templated.post("/v1/chat/completions", json=asked).json()["choices"]
    assert choice["message"]["content"] == text.removeprefix(" ")
    assert choice["finish_reason"] == ("stop" if found.ended == ["eos"] else "length")
    asked["messages"] = [*HELLO, {"role": "assistant", "content": "Well"}]
    (choice,) = templated.post("/v1/chat/completions", json={**asked, "continue_final_message": True}).json()["choices"]
    assert choice["message"]["content"] == answered(run, [*codec.chat(HELLO), *codec.encode("Well")])[0]


def test_a_text_begins_with_what_the_tokenizer_begins_texts_with(run, templated):
    found = completion(templated, "abc", max_tokens=8, temperature=0)
    assert found["usage"]["prompt_tokens"] == 4
    assert found["choices"][0]["text"] == answered(run, [BEGIN, *codecs.load(run).encode("abc")], 8)[0]
    state = templated.post("/v1/states", json={"input": "abc"}).json()
    assert state["tokens"] == 4
    streamed = templated.post("/v1/states", content="abc", headers={"Content-Type": "text/plain"}).json()
    assert streamed["tokens"] == 4


def test_a_conversation_goes_on_from_its_state(
    run,
    in_process,  # noqa: F811
    monkeypatch,
    tmp_path,
    templated,
):
    """The same words from a model that is here and from a server, and no token is read twice."""
    said = []
    for place in (str(run), str(templated.base_url)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Hello!\nAnd then?\nWhy?\n"))
        code, out, error = in_process(["chat", place, "--json", "--max-tokens", 24, "--temperature", 0], tmp_path)
        assert code == 0, error
        said.append([line["content"].removeprefix(" ") for line in json.loads(out)])
    assert said[0] == said[1]
    codec, state, read = codecs.load(run), None, []
    for message, answer in zip(said[0][::2], said[0][1::2], strict=True):
        turn = [{"role": "user", "content": message}]
        prompt = codec.chat(turn) if state is None else [*read[-1:], *codec.turn(turn, read[-1])]
        text, found = answered(run, prompt, state=state)
        assert text.removeprefix(" ") == answer
        state, read = found.state, [*read, *prompt[bool(read) :], *found.tokens[0]]


def test_commands_begin_and_end_texts_as_the_tokenizer_does(run, in_process, tmp_path):  # noqa: F811
    text, found = answered(run, [BEGIN, *codecs.load(run).encode("abc")])
    assert found.ended == ["eos"]
    asked = ["generate", run, "--prompt", "abc", "--temperature", 0, "--max-tokens", 24]
    assert json.loads(in_process([*asked, "--json"], tmp_path)[1])["samples"][0]["tokens"] == found.tokens[0]
    assert in_process(asked, tmp_path)[1] == f"{text}\n"
    scored = json.loads(in_process(["score", run, "--text", "abc", "--json"], tmp_path)[1])
    assert scored["tokens"][0] == BEGIN and len(scored["tokens"]) == 4
