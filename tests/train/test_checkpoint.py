import json
import resource
from contextlib import contextmanager

import pytest
import torch
from small_run import exported, run

from runnel.train import checkpoint
from runnel.train.checkpoint import Checkpoint

TENSORS = {
    "model/w": torch.randn(40, 50, generator=torch.Generator().manual_seed(0)),
    "model/half": torch.ones(3, dtype=torch.bfloat16),
    "optimizer/w/step": torch.tensor(3.0),
    "generator/cpu": torch.arange(9, dtype=torch.uint8),
}
FACTS = {"position": {"step": 1, "loss": 0.1 + 0.2}, "run": {"text": "\u00e9", "none": None}}


@contextmanager
def files_up_to(n_bytes):
    """A disk that takes no more: the kernel refuses every write beyond n_bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save(folder, *steps):
    for previous, step in zip((None, *steps), steps, strict=False):
        checkpoint.save(folder, Checkpoint(step, TENSORS, FACTS), previous)


def steps(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_by_foreign(path):
    path.write_text(json.dumps({"format": "pt"}))


def test_what_is_loaded_is_what_was_saved(tmp_path):
    save(tmp_path, 1)
    loaded = checkpoint.load(tmp_path)
    assert loaded.step == 1
    assert loaded.facts == FACTS
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load(tmp_path) is None


def test_the_last_two_are_kept(tmp_path):
    save(tmp_path, 1, 2, 30, 400)
    assert steps(tmp_path) == ["latest", "step-000000030", "step-000000400"]
    assert checkpoint.load(tmp_path).step == 400


def test_what_a_kill_leaves_behind_is_no_checkpoint_and_is_swept(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoints" / ".tmp-step-000000002").mkdir()
    (tmp_path / "checkpoints" / "latest").unlink()
    assert checkpoint.load(tmp_path).step == 1
    checkpoint.save(tmp_path, Checkpoint(2, TENSORS, FACTS), 1)
    assert steps(tmp_path) == ["latest", "step-000000001", "step-000000002"]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tensors.safetensors", shorten, "is truncated: must have 8[0-9]* bytes; got 8[0-9]*"),
        ("tensors.safetensors", flip, "is damaged: its SHA-256 is not the one in checkpoint.json"),
        ("tensors.safetensors", lambda path: path.unlink(), "is missing"),
        ("checkpoint.json", lambda path: path.write_bytes(path.read_bytes()[:50]), "is damaged"),
        ("checkpoint.json", lambda path: path.write_bytes(b""), "is damaged"),
        ("checkpoint.json", replace_by_foreign, "is not a Runnel checkpoint: its format must be .*; got 'pt'"),
        ("checkpoint.json", lambda path: path.write_text("[]"), "is not a Runnel checkpoint: .*; got 'list'"),
        (
            "checkpoint.json",
            lambda path: path.write_text(path.read_text().replace('"step": 2', '"step": 3')),
            "is damaged: its SHA-256 is not the one written in it",
        ),
        ("checkpoint.json", lambda path: path.unlink(), "is missing"),
    ],
)
def test_damage_is_found_named_and_passed_over(tmp_path, capsys, name, damage, message):
    save(tmp_path, 1, 2)
    newest = tmp_path / "checkpoints" / "step-000000002" / name
    damage(newest)
    assert checkpoint.load(tmp_path).step == 1
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {newest} is")
    assert warning.endswith("; going on from step-000000001")
    shorten(tmp_path / "checkpoints" / "step-000000001" / "tensors.safetensors")
    with pytest.raises(ValueError, match=f"^{newest} {message}.*; no older checkpoint is good$"):
        checkpoint.load(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    save(tmp_path, 1)
    with files_up_to(4096), pytest.raises(OSError, match=r"step 2 could not be saved in .* is intact") as caught:
        checkpoint.save(tmp_path, Checkpoint(2, TENSORS, FACTS), 1)
    assert "\n" not in str(caught.value)
    assert steps(tmp_path) == ["latest", "step-000000001"]
    assert checkpoint.load(tmp_path).step == 1
    checkpoint.save(tmp_path, Checkpoint(2, TENSORS, FACTS), 1)
    assert checkpoint.load(tmp_path).step == 2


def test_a_disk_that_fills_up_in_a_run(text, tmp_path):
    run(text, tmp_path / "whole")
    full = files_up_to(8192)

    def fill(report):
        if report.step == 6:
            full.__enter__()

    try:
        with pytest.raises(OSError, match="could not be"):
            run(text, tmp_path / "cut", fill, save_seconds=0.0)
    finally:
        full.__exit__(None, None, None)
    assert checkpoint.load(tmp_path / "cut").step == 5
    run(text, tmp_path / "cut")
    assert exported(tmp_path / "cut") == exported(tmp_path / "whole")
