"""The model class for the LM Evaluation Harness, which is large: `make test-all`, where lm-eval is installed."""

import importlib
import json

import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes
from tests.serve.conftest import serving

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]


TASK = """task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_target: gold
doc_to_choice: choices
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture
def run(tmp_path):
    pytest.importorskip("lm_eval", reason="needs lm-eval")
    model = runnel.build("mamba2", vocab_size=256, d_model=16)
    runnel.save(model, tmp_path / "run")
    Bytes().save(tmp_path / "run")
    return tmp_path / "run"


def request(kind, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_likelihoods_and_texts_are_those_of_the_model(run):
    from runnel.interop.lm_eval import RunnelLM

    lm, model = RunnelLM(str(run), batch_size=2), runnel.load(run)
    pairs = [("one and", " one"), ("", "two"), ("a much longer beginning of a text", " of words")]
    found = lm.loglikelihood([request("loglikelihood", *pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (likelihood, greedy) in zip(pairs, found, strict=True):
        text, asked = list(context.encode()) or [0], list(continuation.encode())
        with torch.no_grad():
            law = model(torch.tensor([[*text, *asked]]))[0][0, len(text) - 1 : -1].double().log_softmax(-1)
        assert likelihood == pytest.approx(float(law.gather(1, torch.tensor([asked]).mT).sum()), abs=1e-4)
        assert greedy == (law.argmax(-1).tolist() == asked)
    (whole,) = lm.loglikelihood_rolling([request("loglikelihood_rolling", "two")], disable_tqdm=True)
    assert whole == pytest.approx(found[1][0], abs=1e-5)
    asked = {"until": ["zzz"], "max_gen_toks": 5, "do_sample": False}
    (text,) = lm.generate_until([request("generate_until", "abc", asked)], disable_tqdm=True)
    own = runnel.generate(model, [list(b"abc")], max_new_tokens=5, decoder="greedy").tokens[0]
    assert text == Bytes().decode(own)


def test_a_task_gives_the_same_by_the_class_and_by_a_server(run, tmp_path):
    """Every likelihood of a local task, by texts one at a time, together, and over the harness's client of servers."""
    lm_eval = pytest.importorskip("lm_eval", reason="needs lm-eval")
    pytest.importorskip("tenacity", reason="needs lm-eval[api]")
    from lm_eval.tasks import TaskManager

    importlib.import_module("runnel.interop.lm_eval")  # registers the model
    sums = [{"q": f"{a}+{b}=", "choices": [str(a + b), "x", "ab"], "gold": 0} for a in range(3) for b in range(3)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, sums)))
    (tmp_path / "sums.yaml").write_text(TASK.format(file=tmp_path / "data.jsonl"))
    with serving(run, eos=(10,)) as client:
        served = {"base_url": f"{client.base_url}/v1/completions", "model": "run", "tokenizer_backend": "remote"}
        ways = [("runnel", {"run": str(run)}, 1), ("runnel", {"run": str(run)}, 4), ("local-completions", served, 3)]
        found = [
            lm_eval.simple_evaluate(
                model=model,
                model_args=arguments,
                tasks=["sums"],
                batch_size=size,
                task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
                bootstrap_iters=0,
                log_samples=True,
            )
            for model, arguments, size in ways
        ]
    results = [{key: value for key, value in one["results"]["sums"].items() if "acc" in key} for one in found]
    assert results[0] == results[1] == results[2] and len(results[0]) >= 2
    likelihoods = [[float(way[0]) for row in one["samples"]["sums"] for way in row["filtered_resps"]] for one in found]
    assert len(likelihoods[0]) == 3 * len(sums)
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=1e-4)
    assert likelihoods[2] == pytest.approx(likelihoods[0], abs=1e-4)
