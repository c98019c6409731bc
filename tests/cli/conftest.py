"""The real command in a real process; one quick demo is shared by the tests that need a trained model."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runnel.cli import _app

PROGRAM = Path(sys.executable).parent / "runnel"


def environment() -> dict[str, str]:
    """One thread, wide help, and `runnel` on the path."""
    path = os.pathsep.join([str(PROGRAM.parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONUTF8": "1"}


def runnel(*arguments: object, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `runnel ARGUMENTS` in a folder, not on a terminal."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, input=stdin, env=environment(), capture_output=True, text=True, check=False)


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a user types it."""
    return subprocess.run(
        ["bash", "-c", command], cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )


def examples(name: str) -> Sequence[str]:
    """The lines of the example that `runnel NAME --help` prints."""
    result = runnel(name, "--help", cwd=Path.cwd())
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("Example"))
    return lines[start + 1 : lines.index("", start)]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the demo's own example was run, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, shell(" && ".join(examples("demo")), folder)


@pytest.fixture
def in_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[object], Path], tuple[int, str, str]]:
    """The command line without a process of its own: (arguments, folder) -> exit code, output, errors."""

    def run(arguments: Sequence[object], folder: Path) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "100")
        code = _app.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
