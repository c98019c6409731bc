"""The model class for the LM Evaluation Harness, which is large: `make test-all`, where lm-eval is installed."""

import importlib
import json

import pytest
import torch

import runnel
from runnel.codecs.bytes import Bytes

pytestmark = [pytest.mark.thorough, pytest.mark.filterwarnings("ignore")]


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


def test_a_task_runs(run, tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    importlib.import_module("runnel.interop.lm_eval")  # registers the model

    sums = [{"q": f"{a}+{b}=", "choices": [str(a + b), "x"], "gold": 0} for a in range(3) for b in range(3)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, sums)))
    (tmp_path / "sums.yaml").write_text(
        f"""task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path / "data.jsonl"}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_target: gold
doc_to_choice: choices
metric_list: [{{metric: acc}}]
"""
    )
    results = [
        lm_eval.simple_evaluate(
            model="runnel",
            model_args=f"run={run}",
            tasks=["sums"],
            batch_size=size,
            task_manager=TaskManager(include_path=str(tmp_path)),
            bootstrap_iters=0,
        )["results"]["sums"]["acc,none"]
        for size in (1, 4)
    ]
    assert results[0] == results[1]
    assert 0 <= results[0] <= 1
