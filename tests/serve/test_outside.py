"""Clients that were written for other servers, unmodified. They are large: `make test-all`, where they are there."""

import math
import subprocess
import sys
from importlib.util import find_spec

import pytest

import runnel
from tests.serve.conftest import serving
from tests.serve.support import completion

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]
PAIRS = [("one and", " one"), ("a much longer beginning of a text", " of words"), ("x", "y"), ("é", "ü, ñ")]
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def harness(run):
    """The LM Evaluation Harness' own client of such servers. The end of a text is a line's."""
    api_models = pytest.importorskip("lm_eval.models.openai_completions", reason="needs lm-eval[api]")
    with serving(run, eos=(10,)) as client:
        address = f"{client.base_url}/v1/completions"
        yield api_models.LocalCompletionsAPI(
            base_url=address, model="small", tokenizer_backend="remote", batch_size=3, max_retries=1
        )


def request(kind, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_the_harness_sees_the_likelihoods_of_in_process_scoring(harness, model):
    found = harness.loglikelihood([request("loglikelihood", *pair) for pair in PAIRS], disable_tqdm=True)
    for (context, continuation), (likelihood, greedy) in zip(PAIRS, found, strict=True):
        asked = list(continuation.encode())
        scores = runnel.score(model, [[*context.encode(), *asked]], top_logprobs=1)
        assert likelihood == pytest.approx(math.fsum(scores.logprobs[0][-len(asked) :]), abs=1e-5)
        likeliest = [next(iter(top)) for top in scores.top_logprobs[0][-len(asked) :]]
        assert greedy == (likeliest == asked)


def test_the_harness_sees_the_texts_of_greedy_decoding(harness, model):
    options = {"until": ["\0"], "max_gen_toks": 12, "temperature": 0}
    (found,) = harness.generate_until([request("generate_until", "one and", options)], disable_tqdm=True)
    alone = runnel.generate(model, [list(b"one and")], 12, temperature=0).tokens[0]
    expected = bytes(alone).split(b"\n")[0].split(b"\0")[0]
    assert found == expected.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def lite(client):
    import os

    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for prices on the network
    found = pytest.importorskip("litellm", reason="needs litellm")
    where = {"api_base": f"{client.base_url}/v1", "api_key": "none", "max_retries": 0}
    return found, where


def test_litellm_chats_and_streams(lite, client):
    litellm, where = lite
    asked = {"messages": HELLO, "max_tokens": 20, "seed": 3, "temperature": 0.5}
    expected = client.post("/v1/chat/completions", json=asked).json()["choices"][0]
    whole = litellm.completion(model="openai/small", **asked, **where)
    assert whole.choices[0].message.content == expected["message"]["content"]
    assert whole.choices[0].finish_reason == expected["finish_reason"]
    assert whole.usage.completion_tokens == 20
    parts = litellm.completion(model="openai/small", **asked, stream=True, **where)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected["message"]["content"]


def test_litellm_completes_and_embeds(lite, client):
    litellm, where = lite
    asked = {"prompt": "abc", "max_tokens": 20, "seed": 3, "temperature": 0.5}
    expected = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
    found = litellm.text_completion(model="text-completion-openai/small", **asked, **where)
    assert found.choices[0].text == expected
    vectors = litellm.embedding(model="openai/small", input=["abc", "xyz"], encoding_format="float", **where)
    own = client.post("/v1/embeddings", json={"input": ["abc", "xyz"]}).json()["data"]
    assert [one["embedding"] for one in vectors.data] == [one["embedding"] for one in own]


def test_litellm_is_refused_what_is_wrong(lite):
    litellm, where = lite
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        litellm.completion(model="openai/small", messages=HELLO, temperature=-1, **where)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/other", messages=HELLO, **where)


@pytest.mark.timeout(7200)
def test_schemathesis_finds_no_fault_of_the_server(run):
    """A thousand cases of every operation, by what the server says of itself."""
    if find_spec("schemathesis") is None:
        pytest.skip("needs schemathesis")
    with serving(run, max_tokens=32, deadline=20.0) as client:
        cases = ["--max-examples", "1000", "--seed", "0", "--phases", "examples,coverage,fuzzing"]
        checks = ["--checks", "not_a_server_error", "--suppress-health-check", "all", "--warnings", "off"]
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"]
        done = subprocess.run([*command, *cases, *checks, "--no-color"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        assert completion(client, "still there", max_tokens=1)
