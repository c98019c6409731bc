import dataclasses
import itertools
from collections import Counter

import pytest
import torch

import runnel
from runnel import catalog
from runnel.codecs import bpe
from runnel.codecs.bytes import Bytes
from runnel.decoders import beam
from runnel.drafters import prompt_lookup
from runnel.processors import SPAN, Text, Trail, automaton, bad_words
from tests.decoding.support import CASES, HYBRIDS, chi_square
from tests.decoding.support import sharp as sharp_model

from .support import RAGGED, Branching, sharp

EVEN = automaton.Config([{0: 1, 1: 0, 3: 0}, {0: 0, 1: 1, 4: 2}, {4: 2}], accepting=[0])
"""Texts of the tokens 0, 1, 3 with an even number of 0s; 4 leads to where nothing is accepted."""
EOS = 2


def texts(symbols, length):
    return [list(text) for size in range(length + 1) for text in itertools.product(symbols, repeat=size)]


def test_a_token_is_banned_when_no_text_goes_on_with_it():
    constraint = automaton.Automaton(EVEN)
    logits = torch.zeros(1, 5, dtype=torch.float64)
    for written in texts(range(5), 4):
        found = constraint.process(logits, [Text([0], written, frozenset([EOS]))])[0]
        for token in range(5):
            ends = [[*written, token, *rest] for rest in texts([0, 1, 3], 2)]
            expected = any(automaton.reference(text, EVEN) for text in ends)
            if token == EOS:
                expected = automaton.reference(written, EVEN)
            assert (float(found[token]) == 0.0) == expected, (written, token)


@pytest.mark.parametrize("pattern", ["mingru, attention", *HYBRIDS])
def test_every_way_of_decoding_writes_accepted_texts(pattern):
    model = sharp_model(pattern)
    sampled = {"decoder": "sample", "temperature": 3.0, "seed": [3, 5, 8]}
    for options in (sampled, {"decoder": "sample", "temperature": 0}):
        options = {**options, "processors": [EVEN], "eos": EOS, "max_new_tokens": 15}
        plain = runnel.generate(model, RAGGED, **options)
        _check(plain)
        for drafter in [*[make(model) for make in CASES.values()], Branching(None)]:
            found = runnel.generate(model, RAGGED, drafter=drafter, prefill_chunk=3, **options)
            assert found.tokens == plain.tokens, drafter
    _check(runnel.generate(model, RAGGED, 15, decoder=beam.Config(width=4, processors=[EVEN]), n=3, eos=EOS))


@pytest.mark.parametrize("name", catalog.names("decoders"))
def test_every_decoder_that_takes_processors_obeys(name):
    config = catalog.page("decoders", name).Config
    if "processors" not in {field.name for field in dataclasses.fields(config)}:
        with pytest.raises(ValueError, match="has no option 'processors'"):
            runnel.generate(sharp(), RAGGED, 12, decoder=name, eos=EOS, processors=[EVEN])
    else:
        _check(runnel.generate(sharp(), RAGGED, 12, decoder=config(processors=[EVEN]), eos=EOS))


def _check(found):
    """What ended is accepted; what did not can still be."""
    for tokens, ended in zip(found.tokens, found.ended, strict=True):
        if ended == "eos":
            assert automaton.reference(tokens[:-1], EVEN)
        else:
            assert any(automaton.reference([*tokens, *rest], EVEN) for rest in ([], [0]))


READY = [name for name in catalog.names("acceptance") if not catalog.required(catalog.page("acceptance", name).Config)]
"""The rules that need nothing of a trained model."""


@pytest.mark.parametrize("rule", READY)
def test_every_acceptance_rule_writes_accepted_texts(rule):
    model = sharp(seed=1)
    rule = catalog.default_config("acceptance", rule)
    for drafter in (CASES["draft_model"](model), prompt_lookup.Config(min_ngram=1), Branching(None)):
        options = {"temperature": 2.0, "processors": [EVEN], "eos": EOS, "max_new_tokens": 15}
        _check(runnel.generate(model, RAGGED, drafter=drafter, acceptance=rule, n=5, **options))


@pytest.mark.parametrize("rule", ["match", "rejection"])
def test_the_law_is_that_of_the_model_with_the_banned_taken_out(rule):
    """The eleven texts of two tokens, each token renormalised over what is allowed, against 2,000 drafted draws."""
    model, prompt = sharp_model(scale=6.0), [1, 4]
    law, after_first = {}, {(): [0, 1, 3, EOS], (0,): [0, 1], (1,): [0, 1, 3, EOS], (3,): [0, 1, 3, EOS]}

    def renormalised(text):
        logits = model(torch.tensor([[*prompt, *text]]))[0][0, -1].detach()
        return zip(after_first[text], logits[after_first[text]].softmax(-1).tolist(), strict=True)

    for first, p in renormalised(()):
        law |= {(first,): p} if first == EOS else {(first, token): p * q for token, q in renormalised((first,))}
    options = {"processors": [EVEN], "eos": EOS, "n": 2000, "seed": 7, "drafter": CASES["draft_model"](model)}
    found = runnel.generate(model, [prompt], 2, acceptance=rule, **options)
    counts = Counter(map(tuple, found.tokens))
    assert len(law) == 11 and set(counts) <= set(law)
    assert chi_square(counts, law) < 23.21  # the 99% quantile of 10 degrees of freedom


def test_bytes_of_any_tokens():
    """(ab)* over bytes, with a codec whose tokens are longer than a byte."""
    codec = bpe.train(["abababab ab abba"] * 50, 264)
    config = automaton.Config([{97: 1}, {98: 0}], accepting=[0], codec=codec)
    longer = [token for token, piece in enumerate(codec.token_bytes) if set(piece) == {97, 98} and len(piece) > 1]
    assert longer
    model = sharp_model(vocab_size=codec.vocab_size, scale=3.0)
    found = runnel.generate(model, [[5]] * 8, 12, processors=[config], eos=0, temperature=2.0)
    assert any(set(tokens) & set(longer) for tokens in found.tokens)
    for tokens, ended in zip(found.tokens, found.ended, strict=True):
        text = codec.decode_bytes(tokens[:-1] if ended == "eos" else tokens)
        assert (text + b"b").startswith(b"ab" * (len(text) // 2)) and (len(text) % 2 == 0 or ended == "length")
        assert automaton.reference(text, config) == (len(text) % 2 == 0)


class Counting(automaton.Automaton):
    """Counts the tokens that it reads."""

    read = 0

    def follow(self, memory, token):
        self.read += 1
        return super().follow(memory, token)


def test_no_token_is_read_twice():
    endless = automaton.Config([{0: 0, 1: 0, 3: 0, 4: 0}], accepting=[0])
    model = sharp()
    for options in ({}, {"drafter": Branching(None)}, {"drafter": CASES["draft_model"](model)}):
        constraint = Counting(endless)
        found = runnel.generate(model, [[1]], 120, processors=[constraint], eos=EOS, temperature=0.5, **options)
        written = len(found.tokens[0]) + 5 * found.stats["target_calls"] * bool(options)
        assert len(found.tokens[0]) > 60 and constraint.read <= written + 5
    constraint = Counting(endless)
    runnel.generate(model, [[1]], 60, decoder=beam.Config(width=3, processors=[constraint]), eos=EOS)
    assert constraint.read <= 3 * 60 + 5


def test_a_trail_says_the_same_as_reading_anew():
    constraint, trail = automaton.Automaton(EVEN), Trail()
    rng = torch.Generator().manual_seed(0)
    base = torch.randint(0, 2, (3 * SPAN,), generator=rng).tolist()
    for _ in range(300):
        size = int(torch.randint(0, len(base), (1,), generator=rng))
        text = [*base[:size], *torch.randint(0, 4, (size % 4,), generator=rng).tolist()]
        assert trail.read(constraint, text) == Trail().read(constraint, text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: automaton.Config([{0: 7}], [0]), r"states of automaton must lie in \[0, 1\); got 7"),
        (lambda: automaton.Config([{300: 0}], [0], codec=Bytes()), "symbols of automaton must be bytes beside a codec"),
        (lambda: automaton.Automaton(automaton.Config([{0: 0}, {}], [1])), "automaton accepts no text"),
    ],
)
def test_what_cannot_be_meant_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_the_model_cannot_write_is_refused():
    def run(config, **options):
        runnel.generate(sharp(), [[1]], processors=[config], **options)

    with pytest.raises(ValueError, match="automaton needs an eos: it says where a text may end"):
        run(EVEN)
    with pytest.raises(ValueError, match=r"symbols of automaton must be tokens in \[0, 5\), no eos; got 4"):
        run(EVEN, eos=4)
    with pytest.raises(ValueError, match=r"symbols of automaton must be tokens in \[0, 5\), no eos; got 9"):
        run(automaton.Config([{9: 0}], [0]), eos=0)
    with pytest.raises(ValueError, match="codec of automaton must know the model's 300 tokens; this one knows 256"):
        model = sharp(vocab_size=300)
        runnel.generate(model, [[1]], processors=[automaton.Config([{9: 0}], [0], codec=Bytes())], eos=0)
    with pytest.raises(ValueError, match="no token is left to write: all are banned by bad_words, automaton"):
        two = automaton.Config([{1: 1}, {}], accepting=[1])
        runnel.generate(sharp(), [[1]], processors=[bad_words.Config([[1]]), two], eos=0)
