"""The command line as a whole: help, methods, doctor, exit codes."""

import json

import pytest

import runnel as library
from runnel.cli import _app, _errors, doctor
from tests.cli.conftest import examples, shell


def test_the_commands_are_the_files():
    assert set(_app.command_names()) >= {"demo", "doctor", "generate", "methods", "train"}


def test_help_names_every_command_and_the_exit_codes(in_process, tmp_path):
    code, out, _ = in_process(["--help"], tmp_path)
    assert code == 0
    for part in (*_app.command_names(), "130", "RUNNEL_TRACEBACK"):
        assert part in out
    assert in_process([], tmp_path)[:2] == (0, out)


def test_version(in_process, tmp_path):
    assert in_process(["--version"], tmp_path)[:2] == (0, library.__version__ + "\n")


@pytest.mark.parametrize("name", ["methods", "doctor"])
def test_examples_run_as_printed(tmp_path, name):
    result = shell(" && ".join(examples(name)), tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("name", _app.command_names())
def test_every_help_has_an_example_and_json(in_process, tmp_path, name):
    code, out, _ = in_process([name, "--help"], tmp_path)
    assert code == 0
    assert f"runnel {name}" in out
    assert "--json" in out


def test_methods_lists_what_the_catalog_has(in_process, tmp_path):
    code, out, _ = in_process(["methods", "--json"], tmp_path)
    assert code == 0
    assert json.loads(out) == library.methods()
    lines = in_process(["methods", "--kind", "mixer"], tmp_path)[1].splitlines()
    assert [line.split()[1] for line in lines] == [m["name"] for m in library.methods() if m["kind"] == "mixer"]


def test_doctor_as_json_and_its_advice(in_process, tmp_path):
    code, out, _ = in_process(["doctor", "--json", "--bandwidth"], tmp_path)
    facts = json.loads(out)
    assert code == 0
    assert facts["torch"]
    assert facts["free_disk_bytes"] > 0
    assert facts["read_bytes_per_second"] > 1e8
    poor = {**facts, "tensorboard": None, "threads": 64, "cores": 2, "free_memory_bytes": 1e9, "free_disk_bytes": 1e8}
    assert len(doctor.advise(poor)) == 4
    rich = {**facts, "tensorboard": "2", "threads": 2, "cores": 2, "free_memory_bytes": 9e9, "free_disk_bytes": 9e9}
    assert doctor.advise(rich) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["methods", "--kind", "mixr"], "did you mean 'mixer'?"),
        (["methods", "--what"], "--what"),
        (["doctor", "now"], "now"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(in_process, tmp_path, arguments, said):
    code, out, error = in_process(arguments, tmp_path)
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_exit_codes_of_errors():
    assert _errors.exit_code(ValueError("x")) == 2
    assert _errors.exit_code(FileNotFoundError("x")) == 2
    assert _errors.exit_code(OSError(28, "No space left on device")) == 1
    assert _errors.exit_code(MemoryError()) == 1
    assert _errors.exit_code(RuntimeError("DefaultCPUAllocator: not enough memory: you tried")) == 1
    assert _errors.exit_code(KeyboardInterrupt()) == 130
    assert _errors.exit_code(TypeError("a bug")) is None
    assert _errors.message(OSError(28, "No space left on device", "a/b")) == "a/b: No space left on device"
    assert _errors.message(ValueError("two\nlines")) == "two lines"


def test_an_error_can_have_its_traceback(tmp_path):
    result = shell("RUNNEL_TRACEBACK=1 runnel methods --kind mixr", tmp_path)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
