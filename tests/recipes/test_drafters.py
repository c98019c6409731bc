"""The recipe runs, keeps what it has done, and says what it found; its claim is in the thorough tests."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runnel.drafters import fastdraft

PATH = Path(__file__).resolve().parents[2] / "recipes" / "drafters.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("drafters_recipe", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(recipe, tmp_path):
    (tmp_path / "text.txt").write_text("the state of a model is a plain value; " * 300)
    return replace(
        recipe.Plan(),
        text=str(tmp_path / "text.txt"),
        pattern="mingru*2, attention",
        d_model=16,
        length=16,
        batch_size=4,
        target_steps=30,
        steps=4,
        prompts=2,
        written=12,
    )


def test_every_entry_runs_and_is_not_run_again(recipe, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "SEEDS", (0,))
    first = list(recipe.perform_all(recipe.ENTRIES, tiny, tmp_path))
    for entry, (found,) in first:
        assert 1 <= found["tokens_per_call"] <= 5 and 0 <= found["rate"] <= 1, entry
        assert 1 <= found["foretold"] <= fastdraft.block_efficiency(found["rate"], recipe.LONGEST)
    monkeypatch.setattr(recipe, "perform", lambda *_: pytest.fail("a finished run was made again"))
    assert list(recipe.perform_all(recipe.ENTRIES, tiny, tmp_path)) == first
    text = recipe.page(first, tiny)
    assert all(f"| `{entry.drafter}` | `{entry.objective}` |" in text for entry in recipe.ENTRIES)


def test_independent_acceptances_are_foretold(recipe, monkeypatch):
    """A drafter whose tokens are accepted by a coin: block efficiency foretells the calls within 5%."""
    coins = torch.Generator().manual_seed(0)

    def toss(target, prompts, written, decoder, drafter, on_tokens):
        for row in range(len(prompts)):
            done = 0
            while done < written:
                room = min(4, written - done - 1)
                kept = int((torch.rand(room, generator=coins) < 0.6).long().cumprod(0).sum())
                on_tokens(row, [0] * (kept + 1))
                done += kept + 1

    monkeypatch.setattr(recipe, "generate", toss)
    drafter = type("Coin", (), {"target": None})()
    found = recipe.drafted(drafter, [[0]] * 50, 64)
    assert found["rate"] == pytest.approx(0.6, abs=0.02)
    assert found["tokens_per_call"] == pytest.approx(found["foretold"], rel=0.05)
