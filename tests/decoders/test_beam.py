import pytest
import torch

import runnel
from runnel.decoders import beam
from runnel.search import Task
from tests.decoding.support import PATTERNS, RAGGED, assert_same_state, sharp, stepped


def law(model, prompt):
    return lambda text: model(torch.tensor([[*prompt, *text]]))[0][0, -1].detach().log_softmax(-1)


@pytest.mark.parametrize("eos", [None, 2])
def test_a_beam_that_covers_everything_finds_the_likeliest_texts(eos):
    model = sharp(vocab_size=3, scale=8.0)
    for prompt in ([1, 0], [2]):
        task = Task(prompt, 0, len(prompt), 4, frozenset() if eos is None else frozenset([eos]))
        expected = beam.reference(law(model, prompt), 3, task)
        found = runnel.generate(model, [prompt], 4, decoder=beam.Config(width=81), eos=eos, n=5)
        assert found.tokens == [text for text, _ in expected[:5]]
        torch.testing.assert_close(torch.tensor(found.scores), torch.tensor([score for _, score in expected[:5]]))
        assert [sum(own) for own in found.logprobs] == pytest.approx(found.scores)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_beam_is_greedy_and_beams_run_over_every_architecture(pattern):
    model = sharp(pattern)
    greedy = runnel.generate(model, RAGGED, 10, decoder="greedy", eos=3)
    one = runnel.generate(model, RAGGED, 10, decoder=beam.Config(width=1), eos=3)
    assert (one.tokens, one.ended) == (greedy.tokens, greedy.ended)
    wide = runnel.generate(model, RAGGED, 10, decoder=beam.Config(width=4), n=2, prefill_chunk=4)
    assert wide.prompts == [0, 0, 1, 1, 2, 2]
    for at, (row, text) in enumerate(zip(wide.prompts, wide.tokens, strict=True)):
        alone = runnel.generate(model, [RAGGED[row]], 10, decoder=beam.Config(width=4), n=2)
        assert text == alone.tokens[at % 2]
        tokens = iter(text)
        again, state = stepped(model, RAGGED[row], len(text), lambda logits, position, tokens=tokens: next(tokens))
        assert again == text
        assert_same_state(wide.state, at, state)


def test_wider_beams_find_likelier_texts_and_the_penalty_prefers_longer_ones():
    model = sharp(scale=6.0)
    prompts = [[token] for token in range(5)]
    narrow, wide = (sum(runnel.generate(model, prompts, 12, decoder=beam.Config(width=w)).scores) for w in (1, 64))
    assert narrow < wide
    short, long = (
        runnel.generate(model, RAGGED, 12, decoder=beam.Config(width=16, length_penalty=p), eos=0).tokens
        for p in (0.0, 3.0)
    )
    assert sum(map(len, short)) < sum(map(len, long))


def test_processors_and_stop_strings_hold():
    from runnel.codecs.bytes import Bytes

    model = sharp(vocab_size=256, scale=25.0)
    found = runnel.generate(model, [[65, 66]], 8, decoder=beam.Config(width=3), codec=Bytes())
    stop = bytes(found.tokens[0][2:4])
    ended = runnel.generate(model, [[65, 66]], 8, decoder=beam.Config(width=3), codec=Bytes(), stop=[stop])
    assert "stop" in ended.ended or stop not in bytes(ended.tokens[0])
    from runnel.processors import bad_words

    banned = bad_words.Config([[found.tokens[0][0]]])
    other = runnel.generate(model, [[65, 66]], 8, decoder=beam.Config(width=3, processors=[banned]))
    assert found.tokens[0][0] not in other.tokens[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder": beam.Config(width=4), "n": 5}, "n must be at most the width 4 of beam; got 5"),
        ({"decoder": beam.Config(width=200), "max_new_tokens": 2}, "width of beam must be at most the 25 texts of 2"),
        ({"decoder": "beam", "drafter": "suffix"}, "no law that a drafter could guess"),
        ({"decoder": "beam", "top_logprobs": 2}, "beam gives no top_logprobs"),
        ({"decoder": "beam", "temperature": 0.5}, "decoder 'beam' has no option 'temperature'"),
        ({"decoder": "beam", "processors": ["mirostat"]}, "mirostat steers what is drawn"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        runnel.generate(sharp(), RAGGED, **options)
    with pytest.raises(ValueError, match="width of beam must be at least 1; got 0"):
        beam.Config(width=0)
