"""Reading a folder takes the memory of the model and of one tensor more, also when it becomes a run."""

import json
import subprocess
import sys

import pytest
import torch

import runnel
from runnel import interop
from runnel.interop import folder as folders

CONFIG = {
    "model_type": "llama", "vocab_size": 6000, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
    "num_key_value_heads": 4, "intermediate_size": 1536, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
PROGRAM = """
import re, sys
from pathlib import Path
from runnel import interop
status = lambda name: 1024 * int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
small, large, out = sys.argv[1:]
interop.import_run(small, out)  # the first time, modules are loaded too
def peak(work):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    model = work()
    return status("VmHWM") - before
print(peak(lambda: sum(float(p.sum()) for p in interop.load(large).parameters())))
print(peak(lambda: interop.import_run(large, out)))
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two folders, of one layer and of all, and the model of the second."""
    places = []
    for layers in (1, CONFIG["num_hidden_layers"]):
        places.append(tmp_path_factory.mktemp(str(layers)))
        config = {**CONFIG, "num_hidden_layers": layers}
        (places[-1] / "config.json").write_text(json.dumps(config))
        family = interop.family_of(config)
        model = runnel.build(**family.model_config(interop.complete(family, config)).to_dict())
        interop.save(model, places[-1], like=places[-1])
    return places, model


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_is_the_model_and_one_tensor(checkpoints, tmp_path):
    places, model = checkpoints
    sizes = [parameter.nbytes for parameter in model.parameters()]
    command = [sys.executable, "-c", PROGRAM, *places, tmp_path / "run"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    for peak in map(int, ran.stdout.split()):
        assert peak <= sum(sizes) + 2 * max(sizes)
        assert peak >= sum(sizes) / 2  # something was measured


def test_what_lies_in_the_file_as_the_model_has_it_is_not_copied(checkpoints):
    """Only queries, keys and values lie apart: gate and value of the perceptrons are neighbours."""
    (_, folder), _ = checkpoints
    model = interop.load(folder)
    size = (folder / "model.safetensors").stat().st_size
    copied = {n for n, p in model.named_parameters() if p.untyped_storage().nbytes() != size}
    assert copied == {f"layers.{i}.mixer.qkv.weight" for i in range(CONFIG["num_hidden_layers"])}


def test_training_leaves_the_file_as_it_is(checkpoints):
    (folder, _), _ = checkpoints
    before = (folder / "model.safetensors").read_bytes()
    model, other = interop.load(folder), interop.load(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert (folder / "model.safetensors").read_bytes() == before
    assert all(torch.equal(a, b + 1.0) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_numbers_that_lie_askew_are_copied(tmp_path):
    header = json.dumps({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}}).encode()
    header += b" " * (1 + -len(header) % 4)
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + torch.arange(3.0).numpy().tobytes())
    assert folders.open_tensors(tmp_path)["x"].start % 4
    assert folders.open_tensors(tmp_path)["x"].read().tolist() == [0.0, 1.0, 2.0]
