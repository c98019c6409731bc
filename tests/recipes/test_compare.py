"""The recipe of the comparison: its models exist, and it makes a page of what the command reports."""

import importlib.util
from pathlib import Path

import pytest

from runnel import patterns

PATH = Path(__file__).resolve().parents[2] / "recipes" / "compare.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("compare_recipe", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_at_least_twenty_four_models_that_can_be_read(recipe):
    assert len(set(recipe.MODELS)) == len(recipe.MODELS) >= 24
    for pattern in recipe.MODELS:
        assert patterns.parse(pattern, None)


@pytest.mark.thorough
def test_a_tiny_comparison_goes_on_and_becomes_a_page(recipe, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the state of a model is a plain value; " * 60)
    sizes = ("--d-model", "8", "--layers", "1", "--length", "16", "--batch", "2", "--task-width", "8")
    options = ("--budget", "30s", "--tasks", "parity", "--rates", "1e-2", *sizes, "--task-layers", "1")
    models = ("mingru", "linear_attention")
    report = recipe.compare(str(text), tmp_path / "runs", models, options)
    assert recipe.compare(str(text), tmp_path / "runs", models, options) == report
    page = recipe.page({"text": report})
    for pattern in models:
        assert f"| `{pattern}` | **" in page
    assert "*order-5 n-gram*" in page
