"""Several processes make the run that one makes, and end together when one of them fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jobs
import many
import pytest
import small_run
import torch

import runnel
from runnel.train import Interrupted, Mesh, Ranks, TrainConfig
from runnel.train.metrics import read
from runnel.train.ranks import _of_this_start
from runnel.types import Batch

SETTINGS = {"steps": 6, "lr": 1e-2, "valid_every": 3, "accumulate": 2, "ema": 0.9, "save_seconds": 1e9}
PLAIN = {**SETTINGS, "ema": None}
PRECISIONS = [(None, False), (torch.bfloat16, False), (None, True)]


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """The undisturbed run of one process, with an average of weights and without."""
    ways = {"averaged": SETTINGS, "plain": PLAIN}
    return {way: jobs.train(text, tmp_path_factory.mktemp(way), None, settings) for way, settings in ways.items()}


def close(found, wanted, within=1e-9):
    losses, valid, weights = found
    assert losses == pytest.approx(wanted[0], abs=within)
    assert valid == pytest.approx(wanted[1], abs=within)
    assert weights == pytest.approx(wanted[2], abs=within)


def test_two_ranks_are_one(text, tmp_path, alone):
    found = many.again(2, "jobs:train", text, tmp_path, Mesh(data=2), SETTINGS)
    assert found[0] == found[1]  # to the bit
    close(found[0], alone["averaged"])
    written = [(line["split"], line["step"]) for line in read(tmp_path)]
    first, second = [[("train", step) for step in steps] for steps in ((1, 2, 3), (4, 5, 6))]
    assert written == [*first, ("valid", 3), *second, ("valid", 6)]  # once


@pytest.mark.parametrize(
    ("count", "mesh", "extra"),
    [
        (2, Mesh(data=2), {"shard": True}),
        (2, Mesh(data=2), {"shard": True, "offload": True}),
        (2, Mesh(sequence=2), {"shard": True, "recompute": True}),
        (4, Mesh(data=2, sequence=2), {}),
        (1, None, {"recompute": True, "chunk": 7}),
    ],
    ids=["sharded", "offloaded", "sharded slices", "two by two", "recomputed"],
)
def test_what_is_kept_where_changes_nothing(text, tmp_path, alone, count, mesh, extra):
    for found in many.again(count, "jobs:train", text, tmp_path, mesh, {**PLAIN, **extra}):
        close(found, alone["plain"], 1e-8)


@pytest.mark.thorough
def test_two_hundred_steps_have_the_same_curve(text, tmp_path):
    settings, pattern = {"steps": 200, "lr": 1e-2, "valid_every": 50, "save_seconds": 1e9}, "mamba2, gla, attention"
    wanted = jobs.train(text, tmp_path / "one", None, settings, 5, pattern)
    mesh = Mesh(data=2, sequence=2)
    for found in many.again(4, "jobs:train", text, tmp_path / "four", mesh, settings, 5, pattern):
        assert len(found[0]) == 200 and found[0][-1] < found[0][0] / 2
        close(found, wanted, 1e-8)


def test_bfloat16_halves_what_is_gathered(text):
    for whole, half, waiting in zip(*[many.again(2, "jobs:gathered", text, *how) for how in PRECISIONS], strict=True):
        assert half[1] == whole[1] // 2 > 0
        assert half[2] == whole[2] == {"torch.float32"}  # gradients are summed in it
        assert half[0] == pytest.approx(whole[0], rel=0.01) and half[0] != whole[0]
        assert torch.cosine_similarity(half[3], whole[3], dim=0) > 0.99
        assert waiting[0] == whole[0] and torch.equal(waiting[3], whole[3])


def test_a_sharded_run_goes_on_alone_and_the_other_way_round(text, tmp_path, alone):
    losses, *rest = alone["plain"]
    sharded = {**PLAIN, "shard": True}
    stopped = many.again(2, "jobs:interrupted_at", text, tmp_path / "first", 3, sharded)
    assert [kind for kind, _ in stopped] == ["Interrupted"] * 2, stopped
    close(jobs.train(text, tmp_path / "first", None, PLAIN), (losses[3:], *rest), 1e-8)
    with pytest.raises(Interrupted):
        jobs.interrupted_at(text, tmp_path / "second", 3, PLAIN)
    close(many.again(2, "jobs:train", text, tmp_path / "second", Mesh(data=2), sharded)[1], (losses[3:], *rest), 1e-8)


KILLED = {**small_run.SAVING, "steps": 8}


@pytest.fixture(scope="module")
def undisturbed(text, tmp_path_factory):
    return many.again(2, "jobs:train", text, tmp_path_factory.mktemp("whole"), Mesh(data=2), KILLED)[0]


@pytest.mark.parametrize("job", ["killed_at", "killed_together"])
def test_killed_in_a_checkpoint_or_all_at_once_they_go_on_as_if_nothing_had_been(text, tmp_path, undisturbed, job):
    wanted, other = undisturbed, tmp_path / "other"
    assert many.run(2, f"jobs:{job}", text, tmp_path / "cut", 4, KILLED)[0] == ("Killed", "no result")
    shutil.copytree(tmp_path / "cut", other)
    found = many.again(2, "jobs:train", text, tmp_path / "cut", Mesh(data=2), KILLED)[0]
    assert found[1:] == wanted[1:]  # to the bit
    assert found[0] == wanted[0][-len(found[0]) :]
    close(jobs.train(text, other, None, KILLED), (wanted[0][-len(found[0]) :], *wanted[1:]), 1e-6)  # another mesh


def test_more_ranks_than_rows(text, tmp_path):
    settings = {**SETTINGS, "accumulate": 1}
    wanted = jobs.train(text, tmp_path / "one", None, settings, 2)
    close(many.again(3, "jobs:train", text, tmp_path / "three", Mesh(data=3), settings, 2)[2], wanted)


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


@pytest.mark.parametrize(("what", "named"), [("model", "run"), ("settings", "run"), ("data", "run"), ("code", "code")])
def test_ranks_that_differ_are_refused_by_all(text, tmp_path, what, named):
    (tmp_path / "other.txt").write_text(text.read_text().replace("the", "one"))
    found = many.run(2, "jobs:start_differently", text, tmp_path / "run", what, tmp_path / "other.txt")
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


def test_what_ranks_of_an_earlier_start_left_is_not_read(monkeypatch):
    store = torch.distributed.HashStore()
    first, second = [[_of_this_start(store, 2) for _ in range(2)] for _ in range(2)]
    first[0].set("word", "of a rank that is gone")
    assert first[1].check(["word"]) and not second[0].check(["word"])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not _of_this_start(store, 2).check(["word"])


@pytest.mark.parametrize("option", [{"offload": True}, {"shard_precision": "bfloat16"}])
def test_what_belongs_to_shard_is_refused_without_it(option):
    with pytest.raises(ValueError, match="offload and shard_precision are options of shard; got shard=False"):
        TrainConfig(steps=1, **option)
