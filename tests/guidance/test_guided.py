"""Every guidance with every decoder, drafter and acceptance rule, on pure and hybrid models."""

import pytest
import torch

import runnel
from runnel import catalog
from runnel.decoders import beam
from runnel.guidance import Guided, Stream, cfg
from runnel.state import State, leaves
from runnel.tree import DraftTree
from tests.decoding.support import CASES as DRAFTERS
from tests.decoding.support import HYBRIDS, Branching

from .support import CASES, OTHERS, RAGGED, literal, sharp

PATTERNS = ("attention", *HYBRIDS[:2])


def test_every_guidance_has_its_case():
    assert set(CASES) == set(catalog.names("guidance"))


def drafters(model):
    return [*[make(model) for make in DRAFTERS.values()], Branching(None)]


def assert_streams(state, row, expected):
    for own, wanted in zip(state.fork([row]).layers, expected, strict=True):
        assert isinstance(own, Stream)
        for found, leaf in zip(leaves(own.layers), leaves(wanted.layers), strict=True):
            torch.testing.assert_close(found[:, found.shape[1] - leaf.shape[1] :], leaf, rtol=0, atol=1e-9)
        assert int(own.lengths) == int(wanted.lengths)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", CASES)
def test_any_drafter_writes_what_the_literal_loop_writes(pattern, name):
    """Greedy text, and the state of every stream after it, of a ragged batch and of a row alone."""
    model, page, config = sharp(pattern), catalog.page("guidance", name), CASES[name]()
    expected = [literal(model, page, config, *both, 8) for both in zip(RAGGED, OTHERS, strict=True)]
    some = drafters(model) if pattern == "attention" else [DRAFTERS["suffix"](model), Branching(None)]
    for drafter in [None, *some]:
        options = {"max_new_tokens": 8, "decoder": "greedy", "drafter": drafter}
        found = runnel.generate(model, RAGGED, guidance=config, prefill_chunk=4, **options)
        assert found.tokens == [tokens for tokens, _ in expected], drafter
        alone = runnel.generate(model, RAGGED[2:], guidance=CASES[name](slice(2, 3)), **options)
        assert alone.tokens == found.tokens[2:]
        for row, (_, states) in enumerate(expected):
            assert_streams(found.state, row, states)


@pytest.mark.parametrize("rule", [r for r in catalog.names("acceptance") if catalog.page("acceptance", r).LOSSLESS])
def test_greedy_is_the_same_with_every_rule(rule):
    model, options = sharp(), {"decoder": "greedy", "guidance": CASES["contrastive"]()}
    plain = runnel.generate(model, RAGGED, 8, **options)
    for drafter in (DRAFTERS["draft_model"](model), DRAFTERS["suffix"](model), Branching(None)):
        assert runnel.generate(model, RAGGED, 8, acceptance=rule, drafter=drafter, **options).tokens == plain.tokens


@pytest.mark.parametrize("name", CASES)
def test_samples_are_the_same_with_every_drafter(name):
    model, options = sharp(), {"seed": [3, 5, 8], "temperature": 1.5}
    plain = runnel.generate(model, RAGGED, 8, guidance=CASES[name](), **options)
    assert plain.tokens != runnel.generate(model, RAGGED, 8, **options).tokens
    for drafter in drafters(model):
        assert (
            runnel.generate(model, RAGGED, 8, guidance=CASES[name](), drafter=drafter, **options).tokens == plain.tokens
        )


@pytest.mark.parametrize("name", CASES)
def test_one_beam_is_greedy_and_a_beam_finds_likelier_texts(name):
    model = sharp(scale=6.0)
    greedy = runnel.generate(model, RAGGED, 10, decoder="greedy", eos=3, guidance=CASES[name]())
    one = runnel.generate(model, RAGGED, 10, decoder=beam.Config(width=1), eos=3, guidance=CASES[name]())
    assert (one.tokens, one.ended) == (greedy.tokens, greedy.ended)
    wide = runnel.generate(model, RAGGED, 10, decoder=beam.Config(width=8), eos=3, guidance=CASES[name](), n=2)
    assert all(wide.scores[2 * row] >= sum(greedy.logprobs[row]) - 1e-9 for row in range(3))
    assert wide.scores != one.scores


@pytest.mark.parametrize("name", catalog.names("decoders"))
def test_every_decoder_runs_under_guidance(name):
    """Guidance that weighs the other stream with nothing changes nothing; other guidance does."""
    model, decoder = sharp(), catalog.default_config("decoders", name)
    plain = runnel.generate(model, RAGGED, 8, decoder=decoder, eos=2)
    same = runnel.generate(model, RAGGED, 8, decoder=decoder, eos=2, guidance=cfg.Config(1.0, OTHERS))
    assert (same.tokens, same.logprobs, same.scores) == (plain.tokens, plain.logprobs, plain.scores)
    other = runnel.generate(model, RAGGED, 8, decoder=decoder, eos=2, guidance=cfg.Config(-2.0, OTHERS))
    assert other.tokens != plain.tokens


def test_thirty_rounds_of_accepting_and_rejecting():
    model, rng = sharp("mamba2, attention(window=5)"), torch.Generator().manual_seed(0)
    guided = Guided(model, CASES["cfg"]())
    parents = [-1, 0, 1, 0, 3, -1, 5, 6, 5, 8, -1, 10, 11, 10, 13]
    rows = [node // 5 for node in range(15)]
    with torch.no_grad():
        state = guided.begun(guided.init_state(3), RAGGED)
        texts = [[], [], []]
        for _ in range(30):
            picks = torch.randint(0, 5, (15,), generator=rng).tolist()
            tree = DraftTree(picks, parents, rows)
            out = guided.verify(state, tree)
            paths = [[], [5, 6, 7][: int(torch.randint(0, 4, (1,), generator=rng))], [10, 13]]
            state = state.commit(out.pending, paths)
            for row, path in enumerate(paths):
                texts[row] += [picks[node] for node in path]
        for row in range(3):
            stepwise = guided.begun(guided.init_state(3), RAGGED).fork([row])
            for token in texts[row]:
                _, stepwise = guided(torch.tensor([[token]]), stepwise)
            assert_streams(state, row, stepwise.layers)
    assert state.lengths.tolist() == [len(text) for text in texts]


def test_a_text_written_in_two_calls_is_the_text_written_in_one(tmp_path):
    model, options = sharp("gated_deltanet, mingru, attention"), {"seed": [3, 5, 8], "temperature": 1.5}
    whole = runnel.generate(model, RAGGED, 12, guidance=CASES["cfg"](), **options)
    first = runnel.generate(model, RAGGED, 5, guidance=CASES["cfg"](), **options)
    first.state.save(tmp_path / "joint.state")
    guided = Guided(model, CASES["cfg"]())
    for state in (first.state, State.load(tmp_path / "joint.state", guided)):
        newest = [tokens[-1:] for tokens in first.tokens]
        then = runnel.generate(model, newest, 7, guidance=cfg.Config(1.7), state=state, **options)
        assert [[*a, *b] for a, b in zip(first.tokens, then.tokens, strict=True)] == whole.tokens
    with pytest.raises(ValueError, match="belongs to another model"):
        State.load(tmp_path / "joint.state", model)
    several = runnel.generate(model, RAGGED, 5, guidance=CASES["cfg"](), n=2, seed=[3, 1, 5, 1, 8, 1], temperature=1.5)
    assert several.tokens[::2] == first.tokens


def test_every_round_calls_every_stream_once():
    model, calls = sharp("mingru"), []
    handle = model.norm.register_forward_hook(lambda *_: calls.append(1))
    try:
        found = runnel.generate(model, RAGGED[:1], 20, guidance=CASES["cfg"](slice(1)), decoder="greedy")
    finally:
        handle.remove()
    assert len(calls) == 2 * found.stats["target_calls"] + 1  # and the prompt; the other one has a single token
    assert found.stats["target_calls"] == 20


def test_what_cannot_be_meant_is_refused():
    model = sharp()
    with pytest.raises(ValueError, match="a guidance must be given by name, by the Config of its page"):
        runnel.generate(model, RAGGED, guidance=1.5)
    with pytest.raises(ValueError, match="cfg needs one prompt for each of the 3 prompts; got 1"):
        runnel.generate(model, RAGGED, guidance=cfg.Config(2.0, [[1]]))
    with pytest.raises(ValueError, match=r"must end with the token that its prompt ends with, 4, .*got \[2\] at row 1"):
        runnel.generate(model, RAGGED, guidance=cfg.Config(2.0, [[1], [2], [3]]))
    with pytest.raises(ValueError, match="the state of 2 guided streams is needed; got one of none"):
        runnel.generate(model, RAGGED, guidance=cfg.Config(2.0), state=model.init_state(3))
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\) int64 in \[0, 5\); got 9"):
        runnel.generate(model, RAGGED, guidance=cfg.Config(2.0, [[9, 1], [4], [3]]))
