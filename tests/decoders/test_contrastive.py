import pytest
import torch

import runnel
from runnel.decoders import contrastive
from tests.decoding.support import RAGGED, assert_same_state, sharp, stepped

PATTERNS = ("rwkv7, slstm, mamba", "mamba2, attention(window=5)", "gla")


def reader(model):
    @torch.no_grad()
    def read(text):
        found = model.read(torch.tensor([list(text)]))
        return found.logits[0], found.hidden[0]

    return read


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_the_full_recomputation_and_rows_are_rows_alone(pattern):
    model, config = sharp(pattern), contrastive.Config(candidates=3, alpha=0.6)
    found = runnel.generate(model, RAGGED, 12, decoder=config, prefill_chunk=4)
    greedy = runnel.generate(model, RAGGED, 12, decoder="greedy")
    assert found.tokens != greedy.tokens
    for row, prompt in enumerate(RAGGED):
        expected = contrastive.reference(reader(model), prompt, 12, config)
        assert found.tokens[row] == expected
        tokens = iter(expected)
        _, state = stepped(model, prompt, 12, lambda logits, position, tokens=tokens: next(tokens))
        assert_same_state(found.state, row, state)
    assert found.stats["target_calls"] == 13


@pytest.mark.parametrize("config", [contrastive.Config(alpha=0.0, candidates=4), contrastive.Config(candidates=1)])
def test_no_contrast_and_one_candidate_are_greedy(config):
    for pattern in PATTERNS:
        model = sharp(pattern)
        greedy = runnel.generate(model, RAGGED, 12, decoder="greedy", eos=3)
        found = runnel.generate(model, RAGGED, 12, decoder=config, eos=3)
        assert (found.tokens, found.ended) == (greedy.tokens, greedy.ended)
        for own, expected in zip(found.logprobs, greedy.logprobs, strict=True):
            assert own == pytest.approx(expected, abs=1e-9)


def test_scores_are_the_sums_of_what_was_maximised():
    model, config = sharp("gla"), contrastive.Config(candidates=5, alpha=1.0)
    found = runnel.generate(model, [[1, 2]], 6, decoder=config)
    _, hidden = reader(model)([1, 2, *found.tokens[0]])
    unit = hidden / hidden.norm(dim=-1, keepdim=True)
    expected = -sum(float((unit[at] @ unit[:at].T).max()) for at in range(2, 8))
    assert found.scores == pytest.approx([expected], abs=1e-9)


def test_processors_hold():
    from runnel.processors import bad_words

    model = sharp("mingru")
    free = runnel.generate(model, RAGGED, 8, decoder=contrastive.Config(candidates=2)).tokens
    banned = contrastive.Config(candidates=2, processors=[bad_words.Config([[free[0][0]]])])
    assert free[0][0] not in runnel.generate(model, RAGGED, 8, decoder=banned).tokens[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 2, "decoder": "contrastive"}, "n must be at most the width 1 of contrastive; got 2"),
        ({"decoder": contrastive.Config(candidates=6)}, "must be at most the 5 tokens that there are; got 6"),
        ({"decoder": "contrastive", "drafter": "suffix"}, "no law that a drafter could guess"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        runnel.generate(sharp(), RAGGED, 4, **options)
    with pytest.raises(ValueError, match=r"alpha of contrastive must lie in \[0, 1\]; got 1.5"):
        contrastive.Config(alpha=1.5)
    with pytest.raises(ValueError, match="candidates of contrastive must be at least 1; got 0"):
        contrastive.Config(candidates=0)
