"""docs/methods.md and docs/oracles.json can be made anew from what there is."""

import importlib.util
from pathlib import Path

import pytest

import runnel
from runnel.storage import read_json

ROOT = Path(__file__).parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_has_a_line_that_leads_to_its_page():
    oracles = read_json(ROOT / "docs/oracles.json")
    text = load("methods").page(runnel.methods(), oracles)
    rows = [line for line in text.splitlines() if line.startswith("| [`")]
    assert len(rows) == len(runnel.methods())
    for method in runnel.methods():
        path = f"src/{method['module'].replace('.', '/')}.py"
        assert (ROOT / path).is_file()
        assert f"[`{method['name']}`](../{path})" in text
    for line in oracles:
        assert f"{line['oracle']}: {line['difference']:.0e}" in text


def test_every_oracle_is_as_close_as_the_file_says():
    tool = load("oracles")
    held = {line["name"]: line for line in read_json(tool.ORACLES)}
    for name, oracle, function in tool.MEASURED:
        assert held[name]["oracle"] == oracle
        assert tool.measured(name, function) == pytest.approx(held[name]["difference"], abs=1e-12)
        assert held[name]["difference"] < 1e-6
