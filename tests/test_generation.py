"""The loop: every drafter writes what plain decoding writes, on every mixer; the state is that of plain stepping."""

import math
from collections import Counter

import pytest
import torch

import runnel
from runnel.decoders import greedy, sample
from runnel.drafters import Draft, draft_model, prompt_lookup, suffix
from runnel.generation import generate
from runnel.prefill import prefill
from tests.decoding.support import PATTERNS, RAGGED, Branching, assert_same_state, sharp, stepped


def drafters(pattern):
    near = draft_model.Config(sharp(pattern), max_draft=3)  # the target itself: all is accepted
    far = draft_model.Config(sharp("mingru", seed=1), max_draft=2)
    return [suffix.Config(min_match=1, max_draft=5), prompt_lookup.Config(min_ngram=1), near, far, Branching(None)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_is_the_same_with_every_drafter(pattern):
    model = sharp(pattern)
    plain = [stepped(model, prompt, 12) for prompt in RAGGED]
    expected = [tokens for tokens, _ in plain]
    for drafter in [None, *drafters(pattern)]:
        alone = [generate(model, [prompt], 12, decoder="greedy", drafter=drafter).tokens[0] for prompt in RAGGED]
        assert alone == expected, drafter
        together = generate(model, RAGGED, 12, decoder="greedy", drafter=drafter, prefill_chunk=4)
        assert together.tokens == expected, drafter
        for row, (_, state) in enumerate(plain):
            assert_same_state(together.state, row, state)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_seed_writes_the_same_text(pattern):
    model = sharp(pattern)
    options = {"max_new_tokens": 12, "temperature": 0.9, "top_k": 4, "top_p": 0.95, "min_p": 0.01}
    expected = generate(model, RAGGED, seed=[3, 6, 7], **options)
    assert len({tuple(tokens) for tokens in expected.tokens}) == 3
    for drafter in drafters(pattern):
        found = generate(model, RAGGED, seed=[3, 6, 7], drafter=drafter, prefill_chunk=3, **options)
        assert found.tokens == expected.tokens, drafter
        torch.testing.assert_close(torch.tensor(found.logprobs), torch.tensor(expected.logprobs), rtol=0, atol=1e-9)
    other_rows = generate(model, [RAGGED[2], [3, 3], RAGGED[0]], seed=[7, 0, 3], drafter="suffix", **options)
    assert [other_rows.tokens[2], other_rows.tokens[0]] == [expected.tokens[0], expected.tokens[2]]


def test_row_seeds_count_up_from_the_seed():
    model = sharp("mingru")
    counted = generate(model, [[1, 2]] * 3, 20, seed=7).tokens
    assert counted == generate(model, [[1, 2]] * 3, 20, seed=[7, 8, 9]).tokens
    assert len({tuple(tokens) for tokens in counted}) == 3


def test_rows_that_end_at_different_times_leave_the_others_alone():
    model = sharp("mamba2, attention")
    alone = [generate(model, [prompt], 30, seed=[i], eos=2) for i, prompt in enumerate(RAGGED)]
    assert len({len(one.tokens[0]) for one in alone}) > 1
    for drafter in [None, *drafters("mamba2, attention")]:
        found = generate(model, RAGGED, 30, seed=0, eos=2, drafter=drafter)
        assert found.tokens == [one.tokens[0] for one in alone]
        for row, one in enumerate(alone):
            assert_same_state(found.state, row, one.state)


def test_a_row_stops_at_the_end_token_inside_an_accepted_path():
    model = sharp("mingru")
    free = generate(model, [RAGGED[0]], 20, seed=1).tokens[0]
    eos = next(token for token in reversed(free) if free.index(token) >= 3)
    drafter = draft_model.Config(model, max_draft=19)  # the target itself: one round would accept everything
    whole = generate(model, [RAGGED[0]], 20, seed=1, drafter=drafter)
    assert (whole.tokens[0], whole.stats["target_calls"]) == (free, 1)
    ended = generate(model, [RAGGED[0]], 20, seed=1, drafter=drafter, eos=eos)
    assert ended.tokens[0] == free[: free.index(eos) + 1]
    plain = generate(model, [RAGGED[0]], 20, seed=1, eos=[eos])
    assert_same_state(ended.state, 0, plain.state)


@pytest.mark.parametrize("drafter", [None, "suffix"])
def test_a_text_written_in_two_calls_is_the_text_written_in_one(drafter, tmp_path):
    model = sharp("gated_deltanet, attention")
    whole = generate(model, [RAGGED[0]], 30, seed=4)
    first = generate(model, [RAGGED[0]], 11, seed=4, drafter=drafter)
    first.state.save(tmp_path / "prompt.state")
    state = runnel.State.load(tmp_path / "prompt.state", model)
    second = generate(model, [first.tokens[0][-1:]], 19, seed=4, drafter=drafter, state=state)
    assert first.tokens[0] + second.tokens[0] == whole.tokens[0]
    assert_same_state(second.state, 0, whole.state)


def test_no_new_tokens_reads_the_prompts():
    model = sharp("attention")
    none = generate(model, RAGGED, 0, drafter="suffix")
    assert (none.tokens, none.logprobs, none.stats["target_calls"]) == ([[], [], []], [[], [], []], 0)
    assert none.state.lengths.tolist() == [len(prompt) - 1 for prompt in RAGGED]
    assert generate(model, [p[-1:] for p in RAGGED], 9, state=none.state).tokens == generate(model, RAGGED, 9).tokens


def test_prefill_gives_each_row_the_state_it_has_alone():
    model = sharp("mamba, attention(window=3)")
    texts = [[], [1, 2], [0, 1, 2, 3, 4, 0, 1]]
    for chunk in (1, 3, 512):
        state = prefill(model, texts, model.init_state(batch_size=3), chunk)
        assert_same_state(state, 2, model(torch.tensor(texts[2:]))[1])
        assert_same_state(state, 1, model(torch.tensor(texts[1:2]))[1])
        assert state.lengths.tolist() == [0, 2, 7]


def test_counts_are_consistent():
    model, calls = sharp("mingru"), []
    for drafter in drafters("mingru"):
        calls.clear()
        found = generate(
            model, RAGGED, 25, seed=2, eos=3, drafter=drafter, on_tokens=lambda row, new: calls.append((row, new))
        )
        assert [[t for r, new in calls if r == row for t in new] for row in range(3)] == found.tokens
        stats = found.stats
        assert 0 <= stats["accepted"] <= stats["drafted"]
        assert stats["accepted"] == sum(len(new) - 1 for _, new in calls)
        assert stats["target_calls"] == max(Counter(row for row, _ in calls).values())
        assert stats["seconds"] > 0
    plain = generate(model, [[1]], 9).stats
    assert (plain["target_calls"], plain["drafted"], plain["accepted"]) == (9, 0, 0)


def test_logprobs_are_those_of_the_model():
    model = sharp("gla")
    found = generate(model, [RAGGED[0]], 10, temperature=0.5, top_k=2, drafter="suffix")
    text = torch.tensor([RAGGED[0] + found.tokens[0]])
    law = model(text[:, :-1])[0].log_softmax(-1)[0, -10:]
    torch.testing.assert_close(torch.tensor(found.logprobs[0]), law.gather(1, text[0, -10:, None])[:, 0].float())


@pytest.mark.parametrize("drafter", [None, "branching"])
def test_the_law_of_three_tokens(drafter):
    """Chi-square of 20,000 texts against the law enumerated over all 27 (26 degrees of freedom: 45.64 at p = 0.01)."""
    model = sharp("mingru, attention", vocab_size=3)
    draws, counts = 20_000, Counter()
    for first in range(0, draws, 2000):
        seeds = range(first, first + 2000)
        proposer = Branching3(None) if drafter else None
        found = generate(model, [[1, 0]] * 2000, 3, temperature=2.0, seed=seeds, drafter=proposer)
        counts.update(tuple(tokens) for tokens in found.tokens)
    law = enumerated(model, [1, 0], 2.0)
    assert math.isclose(sum(law.values()), 1, abs_tol=1e-12)
    assert min(law.values()) * draws > 5
    assert sum((counts[text] - draws * p) ** 2 / (draws * p) for text, p in law.items()) < 45.64


def test_a_draft_model_that_errs_leaves_every_draw_as_it_is():
    model, drafter = sharp("mingru, attention", vocab_size=3), draft_model.Config(sharp("gla", vocab_size=3, seed=1))
    prompts, options = [[1, 0]] * 500, {"max_new_tokens": 6, "temperature": 2.0}
    found = generate(model, prompts, drafter=drafter, **options)
    assert 0 < found.stats["accepted"] < found.stats["drafted"]
    assert found.tokens == generate(model, prompts, **options).tokens


class Branching3(Branching):
    def propose(self, memory, budget):
        return Draft([0, 1, 2, 1, 2], [-1, -1, 0, 0, 1])


@torch.no_grad()
def enumerated(model, prompt, temperature):
    texts = torch.cartesian_prod(*[torch.arange(3)] * 3)
    whole = torch.cat([torch.tensor([prompt]).expand(27, -1), texts], dim=1)
    law = (model(whole)[0][:, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    scores = law.gather(-1, texts[..., None])[..., 0].sum(1).exp()
    return {tuple(text): p for text, p in zip(texts.tolist(), scores.tolist(), strict=True)}


def test_methods_are_named_configured_or_given():
    model = sharp("mingru")
    named = generate(model, RAGGED, 15, decoder="sample", drafter="suffix", temperature=0.7).tokens
    assert generate(model, RAGGED, 15, decoder=sample.Config(temperature=0.7), drafter=suffix.Config()).tokens == named
    given = {"decoder": sample.Sample(sample.Config(temperature=0.7)), "drafter": suffix.Suffix(suffix.Config())}
    assert generate(model, RAGGED, 15, **given).tokens == named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "at least one list of token ids; got an empty list"),
        ({"prompts": [[1], []]}, "at least one token; got an empty one at row 1"),
        ({"prompts": [[1], [2, 5]]}, r"tokens must lie in \[0, 5\); got 5 at row 1, position 1"),
        ({"prompts": [1, 2]}, "lists of token ids; got 1 at row 0"),
        ({"prompts": ["ab"]}, "lists of token ids; got 'ab' at row 0"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0; got -1"),
        ({"prefill_chunk": 0}, "prefill_chunk must be at least 1; got 0"),
        ({"temperature": -0.5}, "temperature must be a finite number >= 0; got -0.5"),
        ({"temperature": math.nan}, "temperature must be a finite number >= 0; got nan"),
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]; got 0.0"),
        ({"top_p": 1.5}, r"top_p must lie in \(0, 1\]; got 1.5"),
        ({"min_p": 2.0}, r"min_p must lie in \[0, 1\]; got 2.0"),
        ({"decoder": "greedy", "temperature": 0.5}, "decoder 'greedy' has no option 'temperature'"),
        ({"decoder": greedy.Config(), "top_k": 2}, "top_k belong beside the name"),
        ({"decoder": "sampel"}, "no decoder is called 'sampel'; did you mean 'sample'"),
        ({"decoder": 3}, "a decoder must be given by name, by the Config of its page or as an object; got 3"),
        ({"drafter": "sufix"}, "no drafter is called 'sufix'; did you mean 'suffix'"),
        ({"drafter": sample.Config()}, "a drafter must be given by name"),
        ({"drafter": "draft_model"}, r"drafter 'draft_model' needs a model: give draft_model.Config\(model=...\)"),
        ({"seed": [1, 2]}, "seed must be one number, or one for each of the 1 prompts; got 2"),
        ({"seed": -1}, r"seeds must lie in \[0, 2\^63\); got -1"),
        ({"eos": 5}, r"eos must be a token in \[0, 5\); got 5"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(ValueError, match=message) as error:
        generate(sharp("mingru"), **{"prompts": [[1]], "max_new_tokens": 2, **change})
    assert "\n" not in str(error.value)


def test_models_that_do_not_fit_are_refused():
    model = sharp("mingru")
    with pytest.raises(ValueError, match="know the target's 5 tokens; this one knows 3"):
        generate(model, [[1]], drafter=draft_model.Config(sharp("gla", vocab_size=3)))
    with pytest.raises(ValueError, match="one row for each of the 1 prompts; got 2"):
        generate(model, [[1]], state=model.init_state(batch_size=2))
    with pytest.raises(ValueError, match=r"needs a model of tokens; this one is of values \(value_dim 2\)"):
        generate(runnel.build("mingru", value_dim=2, d_model=8), [[1]])


def test_logits_that_are_not_numbers_stop_the_text():
    model = runnel.build("mingru", vocab_size=5, d_model=8)
    with torch.no_grad():
        model.head.logits.weight[2] = math.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="logits must be finite; got NaN for row 0, position 1"):
            generate(model, [[1]], temperature=temperature)
