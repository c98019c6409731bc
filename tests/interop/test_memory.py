"""Reading a folder takes the memory of the model and of one tensor more, also when it becomes a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import runnel
from runnel import interop
from runnel.interop import folder as folders
from runnel.interop import mapped

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
    kinds = ["VmRSS", "RssAnon", "RssFile"]
    before = [status(kind) for kind in kinds]
    model = work()
    print(status("VmHWM") - before[0], *(status(kind) - old for kind, old in zip(kinds[1:], before[1:])))
def read():
    model = interop.load(large)
    return model, sum(float(p.sum()) for p in model.parameters())
peak(read)
peak(lambda: interop.import_run(large, out))
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


@pytest.fixture(scope="module")
def taken(checkpoints, tmp_path_factory):
    """Of reading, and of importing: the peak, what is left of a process's own memory, and of that of files; bytes."""
    if sys.platform != "linux":
        pytest.skip("the memory of a process is read from /proc")
    command = [sys.executable, "-c", PROGRAM, *checkpoints[0], tmp_path_factory.mktemp("run")]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return [[int(size) for size in line.split()] for line in ran.stdout.splitlines()]


def test_the_peak_is_the_model_and_one_tensor(checkpoints, taken):
    sizes = [parameter.nbytes for parameter in checkpoints[1].parameters()]
    for peak, _, _ in taken:
        assert peak <= sum(sizes) + max(sizes)
        assert peak >= sum(sizes) / 2  # something was measured


def test_what_is_read_stays_memory_of_the_file(checkpoints, taken):
    """Queries, keys and values, which lie apart in it, too: but for the pages where they meet."""
    parameters = dict(checkpoints[1].named_parameters())
    joined = sum(parameter.nbytes for name, parameter in parameters.items() if "qkv" in name)
    _, own, of_files = taken[0]
    assert own < joined / 4
    assert of_files > 0.99 * sum(parameter.nbytes for parameter in parameters.values())


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


@pytest.mark.parametrize("gaps", [(0, 0, 0), (0, 8192, 4096), (0, 128, 0), (40, 96, 4000), (2, 4096, 0)])
@pytest.mark.parametrize("rows", [(300, 100, 100), (2, 700, 1)])
def test_parts_are_joined_wherever_they_lie(gaps, rows, tmp_path):
    """Also where a part has no whole page, or begins elsewhere in its page than it would in the whole."""
    values, place, parts = torch.randn(sum(rows), 512).half().split(rows), 1 << 12, []
    content = b"x" * place
    for value, gap in zip(values, gaps, strict=True):
        content += b"x" * gap + value.numpy().tobytes()
        parts.append((len(content) - value.nbytes, value))
    (tmp_path / "file").write_bytes(content + b"x" * 10)
    file = mapped.Mapped(tmp_path / "file")
    found = mapped.join([mapped.Stored(file, torch.half, tuple(value.shape), start) for start, value in parts])
    assert torch.equal(found, torch.cat(values))
    del file, parts
    found.add_(1.0)  # nobody else sees it
    assert torch.equal(found, torch.cat(values) + 1.0)
    assert (tmp_path / "file").read_bytes() == content + b"x" * 10


@pytest.mark.skipif(sys.platform != "linux", reason="spans of a process are read from /proc")
def test_spans_go_with_their_last_tensor(tmp_path):
    (tmp_path / "file").write_bytes(bytes(mapped.LEAST + 3 * mapped.PAGE))
    file = mapped.Mapped(tmp_path / "file")
    halves = [mapped.Stored(file, torch.uint8, (mapped.LEAST // 2,), start) for start in (0, mapped.LEAST // 2 + 8192)]
    before = Path("/proc/self/maps").read_text().count(str(tmp_path))
    joined = mapped.join(halves)[5:]
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == before + 2
    del joined
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == before
