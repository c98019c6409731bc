"""The recipe runs, keeps what it has done, and its page has a row for every drafter."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "recipes" / "model_free.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("model_free", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_drafter_runs_and_is_not_run_again(recipe, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat, the dog sat on the log; " * 60)
    plan = replace(
        recipe.Plan(), text=str(text), pattern="mingru", d_model=8, length=8, steps=2, prompts=2, written=12, corpus=200
    )
    monkeypatch.setattr(recipe, "SEEDS", (0, 1))
    monkeypatch.setattr(recipe, "open_text", _with_more_held_out(recipe))
    names = list(recipe.DRAFTERS)
    first = recipe.perform_all(names, plan, tmp_path / "runs")
    assert set(first) == {(name, way) for name in names for way in recipe.WAYS}
    for found in first.values():
        assert [record["seed"] for record in found] == [0, 1]
        assert all(1 <= record["tokens_per_call"] <= 12 for record in found)
    monkeypatch.setattr(recipe, "perform", lambda *_: pytest.fail("a finished run was made again"))
    assert recipe.perform_all(names, plan, tmp_path / "runs") == first
    page = recipe.page(first, plan)
    assert all(f"| `{name.partition(':')[0]}`" in page for name in names)
    assert sum(line.startswith("| `") for line in page.splitlines()) == len(names)
    assert max(len(line) for line in page.splitlines() if "|" not in line) <= 120


def _with_more_held_out(recipe):
    whole = recipe.open_source
    return lambda plan, seed: whole(plan.text, recipe.Bytes(), plan.length, plan.batch_size, seed, valid_fraction=0.2)
