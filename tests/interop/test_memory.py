"""Reading a folder takes the memory of the model and of one tensor more."""

import json
import subprocess
import sys

import pytest

import runnel
from runnel import interop

CONFIG = {
    "model_type": "llama", "vocab_size": 8000, "hidden_size": 512, "num_hidden_layers": 16, "num_attention_heads": 8,
    "num_key_value_heads": 4, "intermediate_size": 1536, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
}  # fmt: skip
PROGRAM = """
import re, sys
from pathlib import Path
from runnel import interop
status = lambda name: 1024 * int(re.search(rf"{name}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
interop.load(sys.argv[1])  # the first time, modules are loaded too
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = status("VmRSS")
model = interop.load(sys.argv[2])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_peak_is_the_model_and_one_tensor(tmp_path):
    folders = []
    for layers in (1, CONFIG["num_hidden_layers"]):
        folders.append(tmp_path / str(layers))
        folders[-1].mkdir()
        config = {**CONFIG, "num_hidden_layers": layers}
        (folders[-1] / "config.json").write_text(json.dumps(config))
        family = interop.family_of(config)
        model = runnel.build(**family.model_config(interop.complete(family, config)).to_dict())
        interop.save(model, folders[-1], like=folders[-1])
    sizes = [parameter.nbytes for parameter in model.parameters()]
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *folders], capture_output=True, text=True, check=True)
    assert int(ran.stdout) <= sum(sizes) + 2 * max(sizes)
    assert int(ran.stdout) >= sum(sizes) / 2  # something was measured
