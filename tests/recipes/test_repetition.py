"""What the recipe shows, for one seed: less repetition than greedy, more distinct n-grams than a beam."""

import importlib.util
from pathlib import Path

import pytest
import torch

from runnel.decoders import beam, diverse_beam

PATH = Path(__file__).resolve().parents[2] / "recipes" / "repetition.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("repetition", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(recipe):
    return recipe.trained(seed=0, steps=100)


def test_sentences_have_their_kinds_in_order(recipe):
    text = recipe.sentences(3, 4, torch.Generator().manual_seed(0)).reshape(3, 4, 5)
    assert text.amax() == recipe.STOP == recipe.VOCAB - 1
    assert torch.equal(text[..., :4] // recipe.WORDS, torch.arange(4).expand(3, 4, 4))


def test_contrastive_search_and_momentum_repeat_less_than_greedy(recipe, model, monkeypatch):
    monkeypatch.setattr(recipe, "LENGTH", 60)
    greedy, contrastive, momentum, sampled = (
        recipe.repeated(model, recipe.ONE_TEXT[name], seed=0).value
        for name in ("greedy", "contrastive, alpha 0.6", "momentum, alpha 0.2", "sample, top-p 0.9")
    )
    assert greedy > 0.8
    assert contrastive < greedy - 0.1
    assert momentum < sampled + 0.05  # near the level of sampling, for one call a token


@pytest.mark.parametrize("term", ["hamming", "cumulative", "ngram"])
def test_diverse_beams_say_more_distinct_things_than_a_beam(recipe, model, term):
    plain = recipe.listed(model, beam.Config(width=recipe.LIST), seed=0)
    diverse = recipe.listed(model, diverse_beam.Config(width=recipe.LIST, groups=3, diversity=2.0, term=term), seed=0)
    assert diverse.value > plain.value + 0.05
    assert diverse.logprob < plain.logprob  # and pay for it
