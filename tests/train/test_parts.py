"""Checkpoints of which every rank writes a part: nothing is lost, nothing half-written is read, any mesh goes on."""

import re
import shutil

import jobs
import many
import pytest
import small_run
import torch

from runnel.train import Mesh, checkpoint
from runnel.train.checkpoint import Checkpoint
from runnel.train.parts import Parts

SETTINGS = {"steps": 6, "lr": 1e-2, "valid_every": 3, "save_seconds": 1e9, "checkpoints": "sharded"}
SHARDED = {**SETTINGS, "shard": True}
TENSORS = {
    "model/w": torch.randn(40, 50, generator=torch.Generator().manual_seed(0)),
    "optimizer/w/step": torch.tensor(3.0),
    "generator/cpu": torch.arange(9, dtype=torch.uint8),
}


def close(found, wanted, taken):
    losses, valid, weights = found
    assert losses == pytest.approx(wanted[0][taken:], abs=1e-8)
    assert (valid, weights) == (pytest.approx(wanted[1], abs=1e-8), pytest.approx(wanted[2], abs=1e-8))


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """The undisturbed run of one process."""
    return jobs.train(text, tmp_path_factory.mktemp("alone"), None, SETTINGS)


def test_what_is_written_is_what_was_there_when_it_began(tmp_path):
    tensors, parts = {name: tensor.clone() for name, tensor in TENSORS.items()}, Parts(tmp_path, None)
    for step in (1, 2):
        parts.save(Checkpoint(step, tensors, {"a": step}), step - 1 or None)
    for tensor in tensors.values():
        tensor.zero_()  # while the thread writes
    parts.settle()
    loaded = checkpoint.load(tmp_path)
    assert (loaded.step, loaded.facts) == (2, {"a": 2})
    assert loaded.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in TENSORS.items())
    part = next((tmp_path / "checkpoints" / "step-000000002").glob("shard-*"))
    part.write_bytes(part.read_bytes()[:-1])
    assert checkpoint.load(tmp_path).step == 1


@pytest.mark.parametrize(
    ("count", "mesh", "settings"),
    [(1, None, SETTINGS), (2, Mesh(sequence=2), {**SHARDED, "checkpoints": "whole"}), (3, None, SHARDED)],
    ids=["alone", "whole, slices", "three"],
)
def test_another_mesh_goes_on(text, tmp_path, alone, count, mesh, settings):
    stopped = many.again(2, "jobs:interrupted_at", text, tmp_path, 3, SHARDED)
    assert [kind for kind, _ in stopped] == ["Interrupted"] * 2, stopped
    newest = sorted((tmp_path / "checkpoints").glob("step-*"))[-1]
    assert len(list(newest.glob("shard-*"))) == 2
    for found in many.again(count, "jobs:train", text, tmp_path, mesh, settings):
        close(found, alone, 3)


KILLED = {**small_run.SAVING, "steps": 6, "checkpoints": "sharded"}


@pytest.fixture(scope="module")
def undisturbed(text, tmp_path_factory):
    return many.again(2, "jobs:train", text, tmp_path_factory.mktemp("whole"), Mesh(data=2), KILLED)[0]


@pytest.mark.parametrize("culprit", [0, 1])
def test_killed_while_parts_are_written(text, tmp_path, undisturbed, culprit):
    wanted = undisturbed
    found = many.run(2, "jobs:killed_in_a_part", text, tmp_path / "cut", 4, KILLED, culprit)
    assert found[culprit] == ("Killed", "no result")
    assert checkpoint.find(tmp_path / "cut").step == 3  # the part that is there is not taken for the whole
    again = many.again(2, "jobs:train", text, tmp_path / "cut", Mesh(data=2), KILLED)[0]
    assert again == (wanted[0][3:], *wanted[1:])  # to the bit


@pytest.mark.parametrize("culprit", [0, 1])
def test_a_full_disk_on_one_rank_ends_all(text, tmp_path, culprit):
    settings = {**small_run.SAVING, "steps": 50, "checkpoints": "sharded"}
    found = many.run(2, "jobs:full_disk", text, tmp_path, culprit, settings)
    assert found[0][0] == "OSError"
    failed = int(
        re.search(r"the checkpoint of step (\d) could not be saved", found[0][1])[1]
    )  # at most one is on its way
    assert f"(rank {culprit}: File too large); what was saved before is intact" in found[0][1]
    assert found[1][0] != "Timeout"
    assert checkpoint.find(tmp_path).step == failed - 1
    assert failed in (2, 3)
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


def test_parts_of_another_checkpoint_are_not_taken_for_this_one(text, tmp_path, capfd):
    many.again(2, "jobs:interrupted_at", text, tmp_path, 3, {**KILLED, "steps": 50})
    older, newer = sorted((tmp_path / "checkpoints").glob("step-*"))
    stale = sorted(older.glob("shard-*"))[1]
    shutil.copy(stale, newer / stale.name)
    assert checkpoint.find(tmp_path).step == 2
    assert f"{newer / stale.name} is" in capfd.readouterr().err
    (older / stale.name).unlink()
    found = many.run(2, "jobs:train", text, tmp_path, Mesh(data=2), {**KILLED, "steps": 50})
    assert found[0][0] == "ValueError" and found[0][1].endswith("no older checkpoint is good")
    assert found[1][0] not in ("Timeout", "Killed")
    assert not (tmp_path / "model.safetensors").exists()
