"""Files are whole or absent: a full disk leaves the old one, and nothing temporary stays behind."""

import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from runnel.storage import DTYPES, read_json, read_lines, read_tensors, remembered, write_json, write_tensors

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors import safe_open
from runnel.storage import write_json, write_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_tensors(Path(sys.argv[1]), {"x": torch.zeros(10_000)}, {})
except OSError as error:
    print("refused:", str(error).replace(chr(10), " "))
"""


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A file-size limit makes the real write fail halfway, as a full disk does."""
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"x": torch.ones(3)}, {"note": "old"})
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith("refused:"), run.stderr
    tensors, meta = read_tensors(path)
    assert torch.equal(tensors["x"], torch.ones(3)) and meta == {"note": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_round_trip_keeps_every_bit_and_dtype(tmp_path):
    values = {
        "a": torch.randn(3, 4).T,
        "b": torch.tensor([1, -2]),
        "c": torch.randn(2).bfloat16(),
        "d": torch.zeros(2, 0),
    }
    write_tensors(tmp_path / "x", {**values, "shared": values["a"]}, {})
    tensors, _ = read_tensors(tmp_path / "x")
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in values.items()
    )


def test_json(tmp_path):
    write_json(tmp_path / "deep" / "x.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "deep" / "x.json") == {"a": [1, 2.5, None]}
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json is damaged"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match="none does not exist"):
        read_json(tmp_path / "none")


def test_lines_are_remembered_and_one_cut_short_is_written_anew(tmp_path):
    path = tmp_path / "new" / "runs.jsonl"
    assert read_lines(path) == []
    calls = []

    def make():
        calls.append(len(calls))
        return {"made": len(calls)}

    first = remembered(path, {"seed": 1}, make)
    assert first == {"seed": 1, "made": 1} == remembered(path, {"seed": 1}, make)
    with path.open("a") as file:
        file.write('{"seed": 2, "ma')
    assert read_lines(path) == [first]
    assert remembered(path, {"seed": 2}, make) == {"seed": 2, "made": 2}
    assert read_lines(path) == [first, {"seed": 2, "made": 2}]
    assert len(calls) == 2


def test_every_dtype_that_is_read_is_written_so_that_safetensors_reads_it(tmp_path):
    made = {name: torch.arange(6).reshape(2, 3).T.to(dtype) for name, dtype in DTYPES.items()}
    made |= {"scalar": torch.tensor(2.5), "turned": torch.randn(3, 5)[:, ::2]}
    write_tensors(tmp_path / "x", made, {"note": "\u4e2d"})
    with safe_open(str(tmp_path / "x"), framework="pt") as file:
        assert file.metadata() == {"note": "\u4e2d"}
        for name, tensor in made.items():
            assert torch.equal(file.get_tensor(name), tensor) and file.get_tensor(name).dtype == tensor.dtype


def test_tensors_without_numbers_are_kept(tmp_path):
    tensors = {"rows": torch.zeros(5, 0).double(), "none": torch.zeros(0), "one": torch.ones(1).char()}
    write_tensors(tmp_path / "some.safetensors", tensors, {})
    found, _ = read_tensors(tmp_path / "some.safetensors")
    assert {name: (t.shape, t.dtype) for name, t in found.items()} == {
        n: (t.shape, t.dtype) for n, t in tensors.items()
    }
