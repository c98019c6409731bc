"""docs/new_mixer.md is true: its page and its test, put where it says, pass everything, and touch nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def code_blocks() -> dict[str, str]:
    """File name -> content, from the Python blocks that follow a file name in the page."""
    text = (ROOT / "docs" / "new_mixer.md").read_text(encoding="utf-8")
    return {
        match[1]: match[2] for match in re.finditer(r"`((?:src|tests)/\S+\.py)`[^`]*```python\n(.*?)```", text, re.S)
    }


@pytest.fixture
def house(tmp_path) -> Path:
    """A copy of the sources and tests with the two files of the page added."""
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    blocks = code_blocks()
    assert set(blocks) == {"src/runnel/mixers/qrnn.py", "tests/mixers/test_qrnn.py"}
    for name, content in blocks.items():
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_text(content)
    return tmp_path


def test_a_mixer_written_from_the_page_passes_everything(house):
    tests = ["tests/conformance", "tests/mixers/test_qrnn.py", "tests/test_catalog.py"]
    program = [sys.executable, "-m", "pytest", "-q", *tests, "-k", "qrnn or catalog", "-m", "not thorough"]
    drop = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'skbc' not in type(f).__module__]\n"
    (house / "src" / "sitecustomize.py").write_text(drop)  # an editable installation must not hide the copy
    environment = {"PYTHONPATH": str(house / "src"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(program, cwd=house, env=environment, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", run.stdout)[1])
    assert passed > 60 and "skipped" not in run.stdout, run.stdout[-500:]
