import itertools
import math
import random

import pytest
import torch

import runnel
from runnel.codecs import bpe
from runnel.codecs.bytes import Bytes
from runnel.decoders import beam
from runnel.drafters import draft_model, prompt_lookup, suffix
from runnel.grammar import Grammar
from runnel.processors import Text, logit_bias, regex

from .support import sharp

PATTERNS = [r"[ab]{2,3}c?", r"(ab|ba)*", r"a+b+", r"(a|bc|abc){1,3}", r"", r"x(é|中)+y"]
PROMPTS = [[65, 66, 67, 65, 66, 67], [98], [0, 97, 98, 97, 98]]


@pytest.mark.parametrize("pattern", PATTERNS[:4])
def test_a_byte_is_banned_when_no_match_goes_on_with_it(pattern):
    config = regex.Config(pattern, Bytes())
    constraint, logits = regex.Regex(config), torch.zeros(1, 256, dtype=torch.float64)
    words = [bytes(word) for size in range(8) for word in itertools.product(b"abc", repeat=size)]
    matches = [word for word in words if regex.reference(word, config)]
    for written in words[:120]:
        found = constraint.process(logits, [Text([0], list(written), frozenset([0]))])[0]
        allowed = {word[len(written)] for word in matches if word.startswith(written) and len(word) > len(written)}
        if regex.reference(written, config):
            allowed.add(0)
        assert set((found == 0).nonzero()[:, 0].tolist()) == allowed, written


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_what_ends_matches_whatever_writes_it(pattern, name):
    codec = Bytes() if name == "bytes" else bpe.train(["abab bcabc aabb xé中y"] * 40, 275)
    config = regex.Config(pattern, codec)
    model = sharp(vocab_size=codec.vocab_size)
    options = {"processors": [config], "eos": 0, "max_new_tokens": 30, "temperature": 8.0, "seed": [1, 2, 3]}
    plain = runnel.generate(model, PROMPTS, **options)
    ended = [tokens[:-1] for tokens, why in zip(plain.tokens, plain.ended, strict=True) if why == "eos"]
    assert ended
    found = runnel.generate(model, PROMPTS, 30, decoder=beam.Config(width=4, processors=[config]), eos=0, n=1)
    greedy = runnel.generate(model, PROMPTS, 30, temperature=0, processors=[config], eos=0)
    for other in (found, greedy):
        ended += [tokens[:-1] for tokens, why in zip(other.tokens, other.ended, strict=True) if why == "eos"]
    assert all(regex.reference(codec.decode_bytes(tokens), config) for tokens in ended)
    for drafter in (suffix.Config(min_match=1), prompt_lookup.Config(min_ngram=1), draft_model.Config(model)):
        assert runnel.generate(model, PROMPTS, drafter=drafter, **options).tokens == plain.tokens
    alone = runnel.generate(model, PROMPTS[2:], **{**options, "seed": [3]})
    assert alone.tokens == plain.tokens[2:]


def test_places_are_values():
    """Moving to and fro between the texts of a parser says what a fresh parser says."""
    rng, grammar = random.Random(0), Grammar.of_regex(r"(ab|b(c|a)*d)*[xyz]{0,3}", Bytes())
    places = [(b"", grammar.begin())]
    for _ in range(400):
        text, place = rng.choice(places)
        token = rng.choice(b"abcdx")
        after = grammar.follow(place, token)
        fresh = grammar.begin()
        for byte in text:
            fresh = grammar.follow(fresh, byte)
        assert torch.equal(grammar.allowed(place), grammar.allowed(fresh))
        assert grammar.accepts(place) == grammar.accepts(fresh)
        assert (after is not None) == bool(grammar.allowed(fresh)[token])
        if after is not None:
            places.append((text + bytes([token]), after))
    assert max(len(text) for text, _ in places) > 6


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"a(b", "regex cannot be followed: .*regex parse error.* unclosed group"),
        (r"a(?=b)", "regex cannot be followed: .*look-around"),
        (r"[^\x00-\U0010ffff]", "regex cannot be followed: no text satisfies it"),
        (r"(ab|cd)[^\x00-\U0010ffff]", "regex cannot be followed: no text satisfies it"),
    ],
)
def test_what_cannot_be_meant_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message) as found:
        runnel.generate(sharp(vocab_size=256), [[1]], processors=[regex.Config(pattern, Bytes())], eos=0)
    assert "\n" not in str(found.value)


def test_what_the_model_cannot_write_is_refused():
    config = regex.Config("a*", Bytes())
    with pytest.raises(ValueError, match="regex needs an eos"):
        runnel.generate(sharp(vocab_size=256), [[1]], processors=[config])
    with pytest.raises(ValueError, match="codec of regex must know the model's 300 tokens; this one knows 256"):
        runnel.generate(sharp(vocab_size=300), [[1]], processors=[config], eos=0)
    with pytest.raises(ValueError, match="no token is left to write: all are banned by regex"):
        runnel.generate(sharp(vocab_size=256), [[1]], processors=[regex.Config("ab", Bytes())], eos=98)
    with pytest.raises(ValueError, match="no token is left to write: all are banned by logit_bias, regex"):
        banned = logit_bias.Config({97: -math.inf})
        runnel.generate(sharp(vocab_size=256), [[1]], processors=[banned, regex.Config("ab", Bytes())], eos=0)
