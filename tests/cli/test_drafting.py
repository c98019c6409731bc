"""Trained drafters from the command line: trained, loaded, and refused for what they were not made for."""

import json

import pytest

import runnel as library
from runnel import drafters
from runnel.codecs.bytes import Bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text and an untrained model of it, and one of another seed."""
    made = tmp_path_factory.mktemp("drafting")
    (made / "text.txt").write_text("the state of a model is a plain value; " * 60)
    for seed in (0, 1):
        library.save(library.build("mingru", vocab_size=256, d_model=16, seed=seed), made / f"model{seed}")
        Bytes().save(made / f"model{seed}")
    return made


def train(*more):
    return [
        "train",
        "text.txt",
        "--target",
        "model0",
        "--length",
        24,
        "--batch",
        4,
        "--steps",
        5,
        "--threads",
        1,
        *more,
    ]


def test_a_drafter_is_trained_and_drafts(folder, in_process):
    code, out, error = in_process(train("--drafter", "medusa(heads=2)", "--out", "medusa", "--json"), folder)
    assert code == 0, error
    facts = json.loads(out)
    assert facts["tokens_per_call"] >= 1 and facts["target"] == "model0" and facts["step"] == 5
    write = ["generate", "model0", "--prompt", "the ", "--max-tokens", 20, "--temperature", 0]
    plain = in_process(write, folder)
    drafted = in_process([*write, "--drafter", "medusa", "--stats"], folder)
    assert plain[0] == drafted[0] == 0
    assert drafted[1] == plain[1] and "drafted tokens accepted" in drafted[2]


def test_the_same_command_goes_on_and_another_is_refused(folder, in_process):
    command = train("--drafter", "hydra(heads=2)", "--out", "again")
    assert in_process(command, folder)[0] == 0
    code, out, _ = in_process(command, folder)
    assert code == 0 and "5 steps" in out
    code, _, error = in_process(train("--drafter", "hydra(heads=3)", "--out", "again"), folder)
    assert code == 2 and "model.heads is 2 there, 3 here" in error
    code, _, error = in_process(train("--drafter", "hydra(heads=2)", "--objective", "medusa", "--out", "again"), folder)
    assert code == 2 and "train.objective is" in error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "text.txt", "--drafter", "hydra"], "give --target and --drafter; got --drafter alone"),
        (["train", "text.txt", "--target", "model0"], "give --target and --drafter; got --target alone"),
        (["train", "text.txt", "--objective", "hydra"], "--objective belongs to a --drafter"),
        (train("--drafter", "suffix"), "must be one that is trained: "),
        (train("--drafter", "hidra"), "did you mean 'hydra'?"),
        (train("--drafter", "hydra(head=2)"), "hydra has no option 'head'; did you mean 'heads'?"),
        (train("--drafter", "hydra(heads=0)"), "heads must be at least 1; got 0"),
        (train("--drafter", "hydra", "--model", "mamba2"), "--model belongs to a model of its own"),
        (
            ["generate", "model0", "--drafter", "hydra"],
            "is given by the folder that `runnel train --drafter hydra` made",
        ),
    ],
)
def test_mistakes(folder, in_process, command, message):
    code, _, error = in_process(command, folder)
    assert code == 2 and message in error


def test_a_trained_drafter_learns_on_by_another_objective(folder, in_process):
    assert in_process(train("--drafter", "fastdraft", "--objective", "nested", "--out", "pretrained"), folder)[0] == 0
    code, out, error = in_process(train("--drafter", "pretrained", "--out", "aligned", "--json"), folder)
    assert code == 0, error
    target = library.load(folder / "model0")
    one, two = [drafters.load(folder / name, target) for name in ("pretrained", "aligned")]
    off = [float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    assert all(0 < change < 0.1 for change in off)  # it began where the other ended
    assert json.loads(out)["tokens_per_call"] >= 1


def test_another_model_is_refused(folder, in_process):
    assert in_process(train("--drafter", "medusa(heads=1)", "--out", "one"), folder)[0] == 0
    code, _, error = in_process(["generate", "model1", "--drafter", "one"], folder)
    assert code == 2 and "one was trained for another target" in error


def test_a_tree_is_calibrated_and_grown(folder, in_process):
    assert in_process(train("--drafter", "medusa(heads=2)", "--out", "guesser"), folder)[0] == 0
    learn = ["calibrate", "text.txt", "--target", "model0", "--length", 12, "--prompts", 4, "--threads", 1]
    code, out, error = in_process([*learn, "--drafter", "guesser", "--out", "tree", "--nodes", 4, "--json"], folder)
    assert code == 0, error
    found = json.loads(out)
    assert len(found["accuracies"]) == 2 and all(0 <= a <= 1 for own in found["accuracies"] for a in own)
    assert found["accepted"] >= found["accepted_of_chain"] - 1e-12
    code, _, error = in_process(
        [*learn, "--drafter", "model1", "--tree", "acceptance_head", "--threshold", 0.5, "--out", "stop"], folder
    )
    assert code == 0, error
    write = ["generate", "model0", "--prompt", "the", "--max-tokens", 12, "--threads", 1, "--json"]
    plain = json.loads(in_process(write, folder)[1])
    for drafter, tree in (("guesser", "tree"), ("guesser", "best_first(nodes=3)"), ("model1", "stop")):
        drafted = json.loads(in_process([*write, "--drafter", drafter, "--tree", tree], folder)[1])
        assert drafted["samples"][0]["tokens"] == plain["samples"][0]["tokens"]
        assert drafted["stats"]["drafted"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "model0", "--tree", "chain"], "give --drafter too"),
        (["generate", "model0", "--drafter", "suffix", "--tree", "chain"], "drafters that are given by a folder"),
        (["generate", "model0", "--drafter", "model1", "--tree", "acceptance_head"], "that `runnel calibrate` made"),
        (["generate", "model0", "--drafter", "model1", "--tree", "chian"], "did you mean 'chain'?"),
        (
            ["calibrate", "text.txt", "--target", "model0", "--drafter", "model1", "--tree", "chain", "--out", "x"],
            "--tree must be one of calibrated, acceptance_head; got chain",
        ),
        (
            ["calibrate", "text.txt", "--target", "model0", "--drafter", "suffix", "--out", "x", "--length", 12],
            "drafters that are given by a folder",
        ),
    ],
)
def test_trees_that_cannot_be_meant(folder, in_process, arguments, message):
    code, _, error = in_process([*arguments, "--threads", 1], folder)
    assert code == 2
    assert message in error
