"""What a call of generate may ask for beside a decoder and a drafter: samples, stops, lists of options, scores."""

import pytest
import torch

import runnel
from runnel.codecs._codec import Codec
from runnel.codecs.bytes import Bytes
from runnel.decoders import beam, sample
from runnel.drafters import draft_model
from runnel.processors import Processor, Stage, bad_words, dry, eta, logit_bias, mirostat_v2, repetition_penalty
from runnel.processors import presence_penalty as presence
from tests.decoding.support import RAGGED, Branching, sharp

DRAFTERS = [None, "suffix", Branching(None)]


class Letters(Codec):
    """Five tokens, one of them two letters long."""

    name = "letters"

    def __init__(self):
        super().__init__([b"a", b"b", b"c", b"d", b"ab"])

    def encode(self, text):
        raise NotImplementedError


# ---- samples


@pytest.mark.parametrize("drafter", DRAFTERS, ids=str)
@pytest.mark.parametrize("pattern", ["mingru, attention", "mamba2, gated_deltanet"])
def test_samples_are_separate_rows_with_the_same_seeds(pattern, drafter):
    model, options = sharp(pattern), {"max_new_tokens": 15, "temperature": 1.5, "drafter": drafter}
    found = runnel.generate(model, RAGGED, n=3, seed=7, processors=[presence.Config(1.0)], **options)
    separate = [prompt for prompt in RAGGED for _ in range(3)]
    expected = runnel.generate(model, separate, seed=range(7, 16), processors=[presence.Config(1.0)], **options)
    assert found.tokens == expected.tokens
    assert len({tuple(row) for row in found.tokens}) == 9
    assert found.state.lengths.tolist() == expected.state.lengths.tolist()


def test_samples_go_on_from_a_state_of_one_row_a_prompt():
    model = sharp()
    scores = runnel.score(model, RAGGED)
    found = runnel.generate(model, [p[-1:] for p in RAGGED], 9, n=2, state=scores.state)
    assert found.tokens == runnel.generate(model, RAGGED, 9, n=2).tokens


def test_every_sample_may_have_its_seed():
    model = sharp()
    assert runnel.generate(model, [[1], [2]], 9, n=2, seed=[5, 6, 5, 6]).tokens == [
        *runnel.generate(model, [[1]], 9, n=2, seed=5).tokens,
        *runnel.generate(model, [[2]], 9, n=2, seed=5).tokens,
    ]


# ---- a list where one value is allowed


@pytest.mark.parametrize("drafter", DRAFTERS, ids=str)
def test_every_prompt_may_have_its_own_options(drafter):
    model = sharp()
    lists = {
        "max_new_tokens": [12, 30, 20],
        "temperature": [0.5, 2.0, 0.0],
        "top_k": [None, 3, None],
        "top_p": [0.9, None, 1.0],
        "min_p": [None, 0.01, 0.2],
        "processors": [["typical"], [], [repetition_penalty.Config(2.0), dry.Config()]],
    }
    found = runnel.generate(model, RAGGED, drafter=drafter, seed=[1, 2, 3], eos=4, **lists)
    for row, prompt in enumerate(RAGGED):
        own = {name: values[row] for name, values in lists.items()}
        alone = runnel.generate(model, [prompt], seed=[row + 1], eos=4, **own)
        assert (found.tokens[row], found.ended[row]) == (alone.tokens[0], alone.ended[0])


def test_processors_compose_in_the_order_of_their_stages():
    class Spy(Processor):
        def __init__(self, stage, seen):
            super().__init__(None)
            self.stage, self.seen = stage, seen

        def process(self, logits, texts):
            self.seen.append((self.stage, logits.clone()))
            return logits

    seen, bias = [], logit_bias.Config({2: 3.0})
    given = [Spy(Stage.TRUNCATION, seen), Spy(Stage.BAN, seen), bad_words.Config([[0]]), eta.Config(0.3), bias]
    runnel.generate(sharp(), [[1]], 1, temperature=2.0, processors=given)
    with torch.no_grad():
        raw = sharp()(torch.tensor([[1]]))[0][0, -1]
    (first, before_bans), (second, tempered) = seen
    assert (first, second) == (Stage.BAN, Stage.TRUNCATION)
    raw[2] += 3.0
    torch.testing.assert_close(before_bans[0], raw)
    raw[0] = -torch.inf
    torch.testing.assert_close(tempered[0], raw / 2.0)


def test_temperature_zero_takes_the_likeliest_of_what_is_left():
    model = sharp()
    greedy = runnel.generate(model, [[1]], 1, decoder="greedy").tokens[0][0]
    second = runnel.generate(model, [[1]], 1, temperature=0, processors=[bad_words.Config([[greedy]])]).tokens[0][0]
    with torch.no_grad():
        assert [greedy, second] == model(torch.tensor([[1]]))[0][0, -1].topk(2).indices.tolist()


# ---- ends


@pytest.mark.parametrize("drafter", [*DRAFTERS, "target"], ids=str)
def test_a_stop_string_ends_a_row_across_tokens_and_inside_an_accepted_path(drafter):
    model, codec = sharp(), Letters()
    drafter = draft_model.Config(model, max_draft=29) if drafter == "target" else drafter
    options = {"max_new_tokens": 30, "temperature": 2.0, "seed": [4, 5, 6], "codec": codec}
    free = runnel.generate(model, RAGGED, **options)
    assert free.texts == [codec.decode(row) for row in free.tokens]
    assert free.ended == ["length"] * 3
    stop = free.texts[0][9:12]
    found = runnel.generate(model, RAGGED, drafter=drafter, stop=[stop, "zz"], **options)
    for text, row, whole, tokens, end in zip(
        found.texts, found.tokens, free.texts, free.tokens, found.ended, strict=True
    ):
        assert text == whole.split(stop)[0]
        assert tokens[: len(row)] == row
        assert end == ("stop" if stop in whole else "length")
        assert stop not in codec.decode(row[:-1])
    assert "stop" in found.ended
    plain = runnel.generate(model, RAGGED, stop=stop, **options)
    assert found.state.lengths.tolist() == plain.state.lengths.tolist()


def test_a_stop_string_may_begin_and_end_within_tokens():
    always = [logit_bias.Config({4: 1e9})]  # "ab", again and again
    found = runnel.generate(sharp(), [[1]], 9, processors=always, stop="ba", codec=Letters())
    assert (found.texts, found.tokens, found.ended) == (["a"], [[4, 4]], ["stop"])


def test_the_end_token_goes_before_the_stop_string():
    always = [logit_bias.Config({4: 1e9})]
    found = runnel.generate(sharp(), [[1]], 9, processors=always, stop="b", eos=4, codec=Letters())
    assert (found.texts, found.tokens, found.ended) == ([""], [[4]], ["eos"])


@pytest.mark.parametrize("options", [{"drafter": "suffix"}, {"decoder": "beam"}, {"stop": "zz", "n": 2}])
def test_the_end_token_is_of_the_tokens_and_not_of_the_text(options):
    codec, common = Letters(), {"max_new_tokens": 30, "codec": Letters(), **options}
    free = runnel.generate(sharp(), [RAGGED[0]], **common)
    eos = free.tokens[0][5]
    found = runnel.generate(sharp(), [RAGGED[0]], eos=eos, **common)
    assert "eos" in found.ended
    for text, tokens, end in zip(found.texts, found.tokens, found.ended, strict=True):
        assert (tokens[-1] == eos) == (end == "eos") and eos not in tokens[:-1]
        assert text == codec.decode(tokens[:-1] if end == "eos" else tokens)


def test_no_limit_is_reached_before_the_first_token():
    assert runnel.generate(sharp(), [[4]], 0, eos=4).ended == ["length"]


# ---- probabilities


def laws(model, text):
    with torch.no_grad():
        return model(torch.tensor([text]))[0][0].log_softmax(-1)


def test_top_logprobs_are_the_models_own():
    model = sharp()
    options = {"temperature": 2.0, "processors": ["eta"], "drafter": "suffix"}
    found = runnel.generate(model, [RAGGED[0]], 10, top_logprobs=2, **options)
    law = laws(model, RAGGED[0] + found.tokens[0])[-11:-1]
    for row, top, token, logprob in zip(law, found.top_logprobs[0], found.tokens[0], found.logprobs[0], strict=True):
        assert list(top) == row.topk(2).indices.tolist()
        torch.testing.assert_close(list(top.values()), row.topk(2).values.tolist(), rtol=0, atol=1e-9)
        assert top.get(token, logprob) == logprob
    assert runnel.generate(model, [[1]], 3).top_logprobs == [[]]
    assert len(runnel.generate(model, [[1]], 3, top_logprobs=99).top_logprobs[0][0]) == 5


@pytest.mark.parametrize("chunk", [1, 4, 512])
def test_scores_are_those_of_one_forward_pass(chunk):
    model = sharp("gated_deltanet, attention(window=4), mamba")
    found = runnel.score(model, RAGGED, top_logprobs=2, prefill_chunk=chunk)
    for row, text in enumerate(RAGGED):
        law = laws(model, text)[:-1]
        expected = law.gather(-1, torch.tensor(text[1:], dtype=torch.long)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found.logprobs[row]).double(), expected, rtol=0, atol=1e-6)
        assert abs(sum(found.logprobs[row]) - float(expected.sum())) < 1e-9
        assert [list(top) for top in found.top_logprobs[row]] == law.topk(2).indices.tolist()
    assert found.state.lengths.tolist() == [len(text) - 1 for text in RAGGED]
    assert runnel.score(model, RAGGED).top_logprobs == [[], [], []]


def test_scores_of_a_text_are_those_of_its_writing():
    model = sharp()
    written = runnel.generate(model, [RAGGED[0]], 12)
    start = runnel.score(model, [RAGGED[0]]).state
    scores = runnel.score(model, [RAGGED[0][-1:] + written.tokens[0]], state=start)
    torch.testing.assert_close(torch.tensor(scores.logprobs), torch.tensor(written.logprobs), rtol=0, atol=1e-9)


def test_a_text_in_two_calls_is_the_text_in_one_when_the_processors_know_what_was_read():
    model, options = sharp(), {"temperature": 1.5, "processors": [repetition_penalty.Config(2.0), dry.Config()]}
    whole = runnel.generate(model, [RAGGED[0]], 30, **options)
    first = runnel.generate(model, [RAGGED[0]], 11, **options)
    read = [RAGGED[0] + first.tokens[0][:-1]]
    second = runnel.generate(
        model, [first.tokens[0][-1:]], 19, state=first.state, read=read, drafter="suffix", **options
    )
    assert first.tokens[0] + second.tokens[0] == whole.tokens[0]


# ---- what cannot be meant


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n must be at least 1; got 0"),
        ({"n": 2, "seed": [1, 2, 3]}, "one for each of the 2 samples of 1 prompts; got 3"),
        ({"top_logprobs": -1}, "top_logprobs must be at least 0; got -1"),
        ({"temperature": [1.0, 2.0]}, "temperature must be one value, or one for each of the 1 prompts; got 2"),
        ({"temperature": [-1.0]}, "temperature must be a finite number >= 0; got -1.0"),
        ({"max_new_tokens": [-1]}, "max_new_tokens must be at least 0; got -1"),
        ({"processors": [["eta"], []]}, "processors must be one value, or one for each of the 1 prompts; got 2"),
        ({"processors": ["etta"]}, "no processor is called 'etta'; did you mean 'eta'"),
        ({"processors": ["eta", 3]}, "a processor must be given by name, by the Config of its page or as an object"),
        ({"processors": ["eta", eta.Config(0.1)]}, "each processor may be given once; got 'eta' 2 times"),
        ({"processors": [repetition_penalty.Config(1.3), presence.Config(-1.0)]}, "must not contradict each other"),
        (
            {"processors": [repetition_penalty.Config(0.5), "presence_penalty"], "decoder": "beam"},
            "repetition_penalty likelier",
        ),
        ({"decoder": beam.Config(width=26)}, "width of beam must be at most the 25 texts of 2 of the 5 tokens"),
        (
            {"decoder": "beam", "drafter": "suffix"},
            "beam keeps several texts and has no law that a drafter could guess",
        ),
        (
            {"processors": [bad_words.Config([[token] for token in range(5)])]},
            "no token is left to write: all are banned",
        ),
        ({"processors": ["eta"], "decoder": "greedy"}, "decoder 'greedy' has no option 'processors'"),
        ({"processors": ["eta"], "decoder": sample.Config()}, "processors belong beside the name of a decoder"),
        ({"stop": "x"}, "give the codec too"),
        ({"stop": "", "codec": Bytes()}, "at least one character; got an empty one"),
        ({"codec": Bytes(), "vocab_size": 300}, "the codec must know the model's 300 tokens; this one knows 256"),
        ({"read": [[1, 2]]}, r"read must be the \[0\] tokens that the state has read; got \[2\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    model = sharp(vocab_size=change.pop("vocab_size", 5))
    with pytest.raises(ValueError, match=message) as error:
        runnel.generate(model, **{"prompts": [[1]], "max_new_tokens": 2, **change})
    assert "\n" not in str(error.value)


def test_a_name_or_a_config_alone_is_a_list_of_one():
    model, options = sharp(), {"temperature": 2.0, "max_new_tokens": 20}
    expected = runnel.generate(model, [[1]], processors=[eta.Config()], **options).tokens
    assert runnel.generate(model, [[1]], processors="eta", **options).tokens == expected
    assert runnel.generate(model, [[1]], processors=eta.Config(), **options).tokens == expected
    decoder = sample.Config(temperature=2.0, processors=("eta",))
    assert runnel.generate(model, [[1]], 20, decoder=decoder).tokens == expected


def test_a_draft_that_leaves_nothing_to_write_is_only_a_draft():
    """Nothing may follow `never`, which the target does not write; a draft model that errs drafts it."""
    model, options = sharp(), {"max_new_tokens": 40, "temperature": 0}
    text = runnel.generate(model, [[1]], **options).tokens[0]
    for drafting in (sharp("mingru", seed=seed) for seed in range(20)):
        wrong = set(runnel.generate(drafting, [[1]], **options).tokens[0]) - {1, *text}
        if wrong:
            break
    never = wrong.pop()
    bans = bad_words.Config([[never, token] for token in range(5)])
    drafter = draft_model.Config(drafting, max_draft=10)
    assert runnel.generate(model, [[1]], drafter=drafter, processors=[bans], **options).tokens == [text]
    raised = runnel.generate(drafting, [[1]], **options).tokens[0]
    assert never in raised[:-1]
    with pytest.raises(ValueError, match="no token is left to write"):
        runnel.generate(drafting, [[1]], processors=[bans], **options)


def test_mirostat_keeps_a_memory_for_every_row():
    model, options = sharp(), {"max_new_tokens": 20, "temperature": 1.5}
    processors = [[mirostat_v2.Config(0.5, 0.9)], [mirostat_v2.Config(2.0, 0.9)], []]
    together = runnel.generate(model, RAGGED, seed=[1, 2, 3], processors=processors, drafter="suffix", **options)
    for row in range(3):
        alone = runnel.generate(model, [RAGGED[row]], seed=[row + 1], processors=processors[row], **options)
        assert alone.tokens[0] == together.tokens[row]
