"""The recipe prints the standard table, keeps what it has computed, and writes a page."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[2] / "recipes" / "forecasting.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("forecasting", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_a_table_that_is_computed_once(recipe, tmp_path, monkeypatch, capsys):
    values = np.sin(np.arange(900) * 2 * np.pi / 24) + 0.1 * np.random.default_rng(0).normal(size=900)
    hours = np.datetime64("2020-01-01T00") + np.arange(900)
    data = tmp_path / "small.csv"
    data.write_text("date,a\n" + "\n".join(f"{hour}:00:00,{v:.4f}" for hour, v in zip(hours, values, strict=True)))
    monkeypatch.setattr(recipe, "LOOKBACKS", (48,))
    monkeypatch.setattr(recipe, "PAGE", tmp_path / "page.md")
    arguments = [str(data), "--horizons", "6,12", "--folder", str(tmp_path / "runs")]
    recipe.main(arguments)
    printed = capsys.readouterr().out
    assert printed.count("`auto`") == printed.count("`ridge`") == 2
    page = (tmp_path / "page.md").read_text()
    assert printed.strip() in page and "## `auto` at horizon 12" in page and "was tried" not in page
    monkeypatch.setattr(recipe.standard, "lines", lambda *_: pytest.fail("it was to be remembered"))
    recipe.main(arguments)
    assert capsys.readouterr().out == printed
