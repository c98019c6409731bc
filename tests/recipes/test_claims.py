"""The recipe of claims runs, remembers what it did, and prints every claim beside its control."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import runnel
from runnel.types import IGNORE

PATH = Path(__file__).resolve().parents[2] / "recipes" / "claims.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("claims", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_side_can_be_built_and_its_rows_fit(recipe):
    sides = [side for claim in recipe.CLAIMS for side in (claim.holds, claim.control)] + list(recipe.CURVE)
    for side in sides:
        source = recipe.opened(side, 1, 0)
        model = runnel.build(side.pattern, vocab_size=source.vocab_size, d_model=side.d_model)
        batch = source.batch(0)
        assert batch.inputs.shape[1] == side.length * (2 if side.twice else 1)
        assert model(batch.inputs[:2])[0].shape[-1] == source.vocab_size


def test_controls_differ_from_their_models_in_one_thing(recipe):
    for claim in recipe.CLAIMS:
        holds, control = claim.holds, claim.control
        fields = ("pattern", "source", "length", "steps", "lr", "d_model", "twice", "random_poles")
        assert sum(getattr(holds, field) != getattr(control, field) for field in fields) == 1, claim.name
        assert claim.failed < claim.solved


def test_a_row_read_twice_is_asked_once(recipe):
    side = next(claim.holds for claim in recipe.CLAIMS if claim.holds.twice)
    once, twice = recipe.opened(replace(side, twice=False), 1, 3).batch(0), recipe.opened(side, 1, 3).batch(0)
    assert twice.inputs.equal(torch.cat([once.inputs, once.inputs], dim=1))
    assert bool((twice.targets[:, : side.length] == IGNORE).all())
    assert twice.targets[:, side.length :].equal(once.targets)


def test_finished_runs_are_remembered_and_the_table_says_what_was_found(recipe, tmp_path):
    claim = recipe.CLAIMS[0]
    tiny = replace(claim.holds, steps=2, length=8, pattern="mingru", d_model=8)
    made = recipe.records(tiny, 2, [0, 1], tmp_path)
    assert made == recipe.records(tiny, 2, [0, 1], tmp_path)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 2
    assert 0.3 < made[0]["accuracy"] < 0.7
    good, bad = [{"accuracy": claim.solved}] * 3, [{"accuracy": claim.failed}] * 3
    assert recipe.met((claim, good, bad))
    assert not recipe.met((claim, [*good[:2], {"accuracy": claim.solved - 0.01}], bad))
    assert not recipe.met((claim, good, [*bad[:2], {"accuracy": claim.failed + 0.01}]))
    assert recipe.table([(claim, good, good)]).count("**no**") == 1
