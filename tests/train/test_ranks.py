"""Several processes make the run that one makes, and end together when one of them fails."""

import os
import subprocess
import sys
from pathlib import Path

import many
import pytest
import small_run
import torch

import runnel
from runnel.train import Mesh, Ranks
from runnel.train.metrics import read
from runnel.types import Batch

SETTINGS = {"steps": 6, "lr": 1e-2, "valid_every": 3, "accumulate": 2, "ema": 0.9, "save_seconds": 1e9}


def alone(text, folder, settings=SETTINGS, **options):
    return many.run(1, "jobs:train", text, folder, None, settings, *options.values())[0]


def close(found, wanted, within=1e-9):
    losses, valid, weights = found
    assert losses == pytest.approx(wanted[0], abs=within)
    assert valid == pytest.approx(wanted[1], abs=within)
    assert weights == pytest.approx(wanted[2], abs=within)


def test_two_ranks_are_one(text, tmp_path):
    wanted = alone(text, tmp_path / "one")
    found = many.run(2, "jobs:train", text, tmp_path / "two", Mesh(data=2), SETTINGS)
    assert found[0] == found[1]  # to the bit
    close(found[0], wanted)
    steps = [(line["split"], line["step"]) for line in read(tmp_path / "two")]
    assert steps == [(line["split"], line["step"]) for line in read(tmp_path / "one")]  # written once


@pytest.mark.parametrize(
    ("count", "mesh", "extra"),
    [
        (2, Mesh(data=2), {"shard": True}),
        (2, Mesh(sequence=2), {"shard": True, "recompute": True}),
        (4, Mesh(data=2, sequence=2), {}),
        (1, None, {"recompute": True, "chunk": 7}),
    ],
    ids=["sharded", "sharded slices", "two by two", "recomputed"],
)
def test_what_is_kept_where_changes_nothing(text, tmp_path, count, mesh, extra):
    settings = {**SETTINGS, "ema": None}
    wanted = alone(text, tmp_path / "one", settings)
    for found in many.run(count, "jobs:train", text, tmp_path / "other", mesh, {**settings, **extra}):
        close(found, wanted, 1e-8)


def test_a_sharded_run_goes_on_alone_and_the_other_way_round(text, tmp_path):
    settings = {**SETTINGS, "ema": None}
    wanted = alone(text, tmp_path / "one", settings)
    sharded = {**settings, "shard": True}
    many.run(2, "jobs:interrupted_at", text, tmp_path / "first", 3, sharded)
    close(alone(text, tmp_path / "first", settings), (wanted[0][3:], *wanted[1:]), 1e-8)
    many.run(1, "jobs:interrupted_at", text, tmp_path / "second", 3, settings)
    found = many.run(2, "jobs:train", text, tmp_path / "second", Mesh(data=2), sharded)[1]
    close(found, (wanted[0][3:], *wanted[1:]), 1e-8)


def test_killed_in_a_checkpoint_they_go_on_as_if_nothing_had_been(text, tmp_path):
    settings = {**small_run.SAVING, "steps": 8}
    wanted = many.run(2, "jobs:train", text, tmp_path / "whole", Mesh(data=2), settings)[0]
    assert many.run(2, "jobs:killed_at", text, tmp_path / "cut", 4, settings)[0] == ("Killed", "no result")
    found = many.run(2, "jobs:train", text, tmp_path / "cut", Mesh(data=2), settings)[0]
    assert found[1:] == wanted[1:]  # to the bit
    assert found[0] == wanted[0][-len(found[0]) :]


def test_more_ranks_than_rows(text, tmp_path):
    settings = {**SETTINGS, "accumulate": 1}
    wanted = many.run(1, "jobs:train", text, tmp_path / "one", None, settings, 2)[0]
    close(many.run(3, "jobs:train", text, tmp_path / "three", Mesh(data=3), settings, 2)[2], wanted)


def test_going_on_with_another_number_of_ranks(text, tmp_path):
    wanted = alone(text, tmp_path / "one", {**SETTINGS, "ema": None})
    many.run(2, "jobs:interrupted_at", text, tmp_path / "two", 3, {**SETTINGS, "ema": None})
    close(alone(text, tmp_path / "two", {**SETTINGS, "ema": None}), (wanted[0][3:], *wanted[1:]))


@pytest.mark.parametrize(
    ("culprit", "how", "wanted"),
    [
        (1, "user", ("ValueError", "rank 1: the data of this rank is bad")),
        (0, "user", ("ValueError", "the data of this rank is bad")),
        (1, "bug", ("RankFailed", "rank 1: KeyError: 'a bug'")),
        (1, "kill", ("RankFailed", "another process has ended without a word")),
    ],
)
def test_one_fails_and_all_end(text, tmp_path, monkeypatch, culprit, how, wanted):
    found = many.run(2, "jobs:stumble", text, tmp_path, culprit, how)
    assert found[0][0] == wanted[0] and found[0][1].startswith(wanted[1])
    assert found[1][0] in ("ValueError", "KeyError", "RuntimeError", "Killed")


def test_a_signal_to_one_stops_all_after_the_same_step(text, tmp_path):
    steps = many.run(2, "jobs:interrupted", text, tmp_path)
    assert steps[0] == steps[1] >= 3


@pytest.mark.parametrize(("what", "named"), [("model", "run"), ("settings", "run")])
def test_ranks_that_differ_are_refused_by_all(text, tmp_path, what, named):
    found = many.run(2, "jobs:start_differently", text, tmp_path, what)
    assert [kind for kind, _ in found] == ["ValueError"] * 2
    assert f"all ranks must have the same {named}" in found[0][1] and "rank 1 has" in found[0][1]


def test_a_mesh_that_does_not_fit_is_refused():
    found = many.run(2, "jobs:too_many")
    assert found[0] == found[1]
    assert "the mesh data=3,sequence=1 needs 3 processes" in found[0][1] and found[0][1].endswith("got 2")


@pytest.mark.parametrize("text_of_mesh", ["data", "data=0", "rows=2", "data=2,data=2", "", "data=-1"])
def test_a_mesh_that_makes_no_sense_is_refused(text_of_mesh):
    with pytest.raises(ValueError, match=r"mesh (must be like|needs data >= 1)"):
        Mesh.parse(text_of_mesh)


def test_shares_are_all_rows_once(text):
    batch = small_run.make_source(text, 5).batch(0)
    shares = [Ranks(Mesh(data=3), index).own(batch) for index in range(3)]
    assert sum(share.n_targets for share in shares) == batch.n_targets
    assert torch.cat([share.batch.inputs for share in shares]).equal(batch.inputs)
    spare = Ranks(Mesh(data=7), 0).own(Batch(batch.inputs, batch.targets))
    assert spare.n_targets == 0 and spare.batch.inputs.shape[0] == 1


def test_the_command_under_torchrun(text, tmp_path):
    options = ["--model", "mingru", "--d-model", "8", "--length", "16", "--steps", "3", "--batch", "2", "--shard"]
    options += ["--mesh", "sequence=2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "runnel", "train"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(text), *options, "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model saved in") == 1
    assert runnel.load(tmp_path / "run").config.d_model == 8
