"""Without the extension, or without a compiler, everything else works, and who asks for it is told."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITES = """
import runnel
from runnel import native
model = runnel.build("(mamba, mingru)", vocab_size=7, d_model=8, seed=0)
print(native.available(), runnel.generate(model, [[1, 2]], 5, temperature=0.7, seed=3).tokens)
try:
    runnel.pack(model)
except ValueError as error:
    print(error)
"""


def run(setting):
    environment = {**os.environ, "RUNNEL_NATIVE": setting, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", WRITES], env=environment, capture_output=True, text=True, timeout=120)


def test_without_the_extension():
    out = run("0").stdout
    assert out.startswith("False [[") and "the native extension was not built" in out
    assert run("1").stdout.split("\n")[0].split(" ", 1)[1] == out.split("\n")[0].split(" ", 1)[1]


def test_a_path_that_is_none():
    assert "No such file" in run("/nowhere/_kernels.so").stderr


@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_it_installs_without_a_compiler(tmp_path):
    environment = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, env=environment, capture_output=True, text=True)
    if built.returncode and "Could not find a version" in built.stderr:
        pytest.skip("what builds the package cannot be had here")
    assert built.returncode == 0, built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert "runnel/mixers/mamba.py" in names and not any("_kernels" in name for name in names)
