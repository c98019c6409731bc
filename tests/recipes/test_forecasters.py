"""The recipe makes a record of every run, keeps it, and says which models landed."""

import csv
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runnel.forecast import protocol
from runnel.forecasters.dlinear import Config
from runnel.storage import remembered
from runnel.windows import FitConfig, Window, build

PATH = Path(__file__).resolve().parents[2] / "recipes" / "forecasters.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("forecasters_recipe", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def data(tmp_path):
    """A file of two waves that is cut at 60 and 80 per cent."""
    wave = (torch.arange(1200)[:, None] / 24 * 6.283 + torch.arange(2)).sin().tolist()
    with (tmp_path / "waves.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["date", "a", "b"], *([f"row {i}", *row] for i, row in enumerate(wave))])
    return protocol.read(tmp_path / "waves.csv")


def test_every_entry_makes_a_model_of_its_published_setting(recipe):
    for entry in recipe.ENTRIES:
        assert (entry.mse is None) == (entry.mae is None) and bool(entry.source) == (entry.mse is not None)
    cheap = [e for e in recipe.ENTRIES if e.history == 96]
    for entry in cheap:
        shape = protocol.WindowShape(96, recipe.HORIZON, 7, future=4 if entry.calendar else 0, season=24)
        model = build(entry.config, shape).eval()
        marks = torch.randn(1, 192, 4) if entry.calendar else None
        assert model.point(Window(torch.randn(1, 96, 7), future=marks)).shape == (1, 96, 7), entry.name


def test_a_run_is_recorded_and_not_made_again(recipe, data, tmp_path):
    entry = recipe.Entry("tiny", Config(), FitConfig(steps=4, valid_every=2, lr=1e-2), history=24, mse=0.1, mae=0.2)
    key = recipe.key(entry, data, 60.0, 0)
    path = tmp_path / "runs.jsonl"
    found = remembered(path, key, lambda: recipe.perform(entry, data, 60.0, 0))
    assert found["ended"] == "steps" and found["steps"] == 4 and found["windows"] == 240 - recipe.HORIZON + 1
    again = remembered(path, recipe.key(entry, data, 60.0, 0), lambda: pytest.fail("a finished run was made again"))
    assert again == found
    other = recipe.key(replace(entry, history=48), data, 60.0, 0)
    assert remembered(path, other, lambda: {"mse": 0.0})["mse"] == 0.0


@pytest.mark.parametrize("mse, landed", [(0.419, "yes"), (0.422, "**no**")])
def test_landed_is_within_five_per_cent(recipe, mse, landed):
    (entry,) = recipe.chosen("nlinear")
    entry = replace(entry, mse=0.4, mae=0.4, source="a paper")
    found = {"parameters": 1000, "mse": mse, "mae": 0.4, "steps": 10, "spent": 1.0, "ended": "steps", "windows": 2785}
    row = recipe.table([(entry, found)]).splitlines()[-1]
    assert f"| {landed} |" in row and "1,000" in row
    written = recipe.page([(entry, found)], 60.0, 0)
    assert "2,785 test windows" in written and "Not run yet: `last_value`" in written and "`nlinear`," not in written


def test_a_name_that_is_none_is_refused(recipe):
    with pytest.raises(ValueError, match="no entry is called 'patchts'; did you mean 'patchtst'"):
        recipe.chosen("ridge,patchts")
