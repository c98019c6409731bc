"""`runnel plan`: layouts of a run, the best first."""

import json

import pytest

import runnel
from runnel.cli import run
from runnel.cli.plan import workload


def test_a_published_run_is_possible(capsys):
    assert run(["plan", "gla*16", "--devices", "64xA100", "--length", "2M", "--batch", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    best = found["layouts"][0]
    assert best["fits"] and best["layout"]["sequence"] == 64
    assert sum(best["memory"].values()) < 80e9
    assert found["workload"]["attention"] == 0


def test_the_table_says_why(capsys):
    assert run(["plan", "(mamba2, attention)*2", "--devices", "8xH100", "--d-model", "256", "--batch", "8"]) == 0
    told = capsys.readouterr().out
    assert "that fit: a step of" in told and "bound by" in told
    assert {line.split("=")[0] for line in told.splitlines() if line.startswith("not ")} == {
        f"not {axis}" for axis in ("sequence", "parameters", "gradients", "optimizer", "recompute")
    }
    assert run(["plan", "attention*48", "--devices", "1xV100", "--d-model", "8192", "--batch", "1"]) == 0
    told = capsys.readouterr().out
    assert "no layout of 2 fits into 32.0 GB: the smallest takes" in told and "most of it optimizer (" in told


def test_micro_batches_and_losses_in_chunks_make_room(capsys):
    """A row of a million tokens for each of 1,024 devices fits only some rows at a time; the step is the same work."""
    arguments = ["plan", "gla*16", "--devices", "1024xH100", "--length", "1M", "--batch", "1024", "--json"]
    told = []
    for more in ([], ["--accumulate", "64"], ["--accumulate", "64", "--objective", "next_token_in_chunks"]):
        assert run([*arguments, *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert [found["layouts"][0]["fits"] for found in told] == [False, True, True]
    assert told[0]["flops"] == told[1]["flops"] == told[2]["flops"]
    assert told[2]["layouts"][0]["memory"]["logits"] < told[1]["layouts"][0]["memory"]["logits"]
    assert run(["plan", "gla", "--batch", "4", "--accumulate", "3"]) == 2
    assert "--accumulate must divide --batch 4; got 3" in capsys.readouterr().err


def test_parameters_and_states_are_those_of_the_model():
    model = runnel.build("(gla, attention)", 50, 32)
    work = workload("(gla, attention)", 32, None, 50, 128, 2)
    assert work.parameters == sum(p.numel() for p in model.parameters())
    assert work.parameters - work.matrices == 50 * 32
    assert work.states == model.init_state(1).nbytes - 8  # but the count of tokens seen
    assert (work.attention, work.keys) == (1, 2 * 2 * 32)


def test_shared_weights_are_not_cut(capsys):
    asked = ["--devices", "4xA100", "--d-model", "32", "--batch", "4", "--show", "999", "--json"]
    cut = {}
    for pattern in ("(mamba2, zamba2)*2", "mamba2*2"):
        assert run(["plan", pattern, *asked]) == 0
        layouts = [plan["layout"] for plan in json.loads(capsys.readouterr().out)["layouts"]]
        cut[pattern] = {layout[axis] for layout in layouts for axis in ("parameters", "gradients", "optimizer")}
    assert cut == {"(mamba2, zamba2)*2": {1}, "mamba2*2": {1, 2, 4}}


def test_rows_of_many_lengths_get_groups_of_their_own(capsys):
    pytest.importorskip("scipy", reason="integer programs need scipy")
    asked = ["plan", "attention*8", "--d-model", "512", "--devices", "8xA100", "--lengths", "256k,4k*12", "--json"]
    assert run(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(row for group in found["groups"] for row in group["rows"]) == [4096] * 12 + [262144]
    assert sum(group["devices"] for group in found["groups"]) == 8
    assert found["seconds"] <= found["even"]["seconds"]
    assert run(asked[:-1]) == 0
    assert "rows of 262,144" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [["--devices", "lots"], ["--lengths", "4k*x"], ["--length", "1T"], ["--batch", "0"]])
def test_mistakes_are_one_line(capsys, bad):
    assert run(["plan", "gla", *bad]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must be" in error


def test_a_measured_plan_is_of_this_machine(capsys):
    small = ["--d-model", "16", "--vocab-size", "64", "--length", "256", "--batch", "2", "--json"]
    assert run(["plan", "gla", *small, "--measure"]) == 0
    found = json.loads(capsys.readouterr().out)
    measured = found["workload"]["measured"]
    assert len(measured["saved"]["1"]) == 3 and measured["update"] > 0
    assert {plan["layout"]["recompute"] for plan in found["layouts"]} == {True, False}
    assert all(plan["seconds"] > 0 and plan["fits"] for plan in found["layouts"])
