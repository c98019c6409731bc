"""The recipe runs, keeps what it has done, and its page says what was measured."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).resolve().parents[2] / "recipes" / "convert.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipe_convert", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_tiny_plan_gives_a_page(recipe, tmp_path):
    plan = recipe.Plan(batch_size=4, teacher_steps=2, transfer_steps=1, steps=1)
    origin = recipe.teacher(plan, tmp_path)
    key = {"to": "gla", "keep": "1/4", "start": "teacher"}
    record = {**key, **recipe.perform("gla", "1/4", "teacher", plan, origin, tmp_path)}
    assert record == {**key, **recipe.perform("gla", "1/4", "teacher", plan, origin, tmp_path)}
    assert record["replaced"] == 3
    page = recipe.page([record], [6])
    assert "| `gla` | 1/4 | teacher |" in page and f"{record['after']['bits']:.3f}" in page
    second = {**record, "after": {"bits": record["after"]["bits"] + 1, "recall": 1.0}}
    low = record["after"]["bits"]
    assert f"| {low + 0.5:.3f} ({low:.3f} to {low + 1:.3f}) |" in recipe.page([record, second], [6, 7])


def test_a_random_start_changes_only_the_new_mixers(recipe):
    plan = recipe.Plan()
    origin = recipe.runnel.build(recipe.PATTERN, vocab_size=64, d_model=32)
    made = recipe.convert.begin(origin, "mamba2", "1/4")
    before = {name: p.clone() for name, p in made.named_parameters()}
    changed = {name for name, p in recipe.shuffled(made).named_parameters() if not torch.equal(p, before[name])}
    assert changed and all(name.startswith(tuple(f"layers.{i}.mixer." for i in made.replaced)) for name in changed)
    assert {f"layers.{i}.mixer.input.weight" for i in made.replaced} <= changed and plan.seed
