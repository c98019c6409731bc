import itertools

import pytest
import torch

import runnel
from runnel.decoders import beam
from runnel.processors import Text, copy_constrained, min_length

from .support import RAGGED, Branching, sharp

CORPUS = copy_constrained.Config([[0, 1, 3, 0, 1, 4], [], [3, 3, 1], [4]])
EOS = 2


def test_a_token_is_banned_when_the_run_does_not_occur():
    constraint, logits = copy_constrained.CopyConstrained(CORPUS), torch.zeros(1, 5, dtype=torch.float64)
    for size in range(5):
        for run in itertools.product([0, 1, 3, 4], repeat=size):
            found = constraint.process(logits, [Text([2], run, frozenset([EOS]))])[0]
            there = size == 0 or copy_constrained.reference(run, CORPUS) > 0
            for token in (0, 1, 3, 4):
                assert (found[token] == 0) == (copy_constrained.reference([*run, token], CORPUS) > 0), (run, token)
            assert (found[EOS] == 0) == there


def test_counts_are_those_of_brute_force():
    rng = torch.Generator().manual_seed(0)
    corpus = copy_constrained.Config([torch.randint(0, 3, (size,), generator=rng).tolist() for size in (40, 7, 90)])
    constraint = copy_constrained.CopyConstrained(corpus)
    counts = 0
    for size in range(1, 6):
        for run in itertools.product(range(3), repeat=size):
            assert constraint.count(run) == copy_constrained.reference(run, corpus)
            counts += constraint.count(run) > 1
    assert counts > 50


def test_every_way_of_decoding_copies():
    model = sharp()
    options = {"processors": [CORPUS], "eos": EOS, "max_new_tokens": 12, "temperature": 4.0, "seed": [3, 5, 8]}
    plain = runnel.generate(model, RAGGED, **options)
    wide = runnel.generate(model, RAGGED, 6, decoder=beam.Config(width=4, processors=[CORPUS]), n=3, eos=EOS)
    long = runnel.generate(model, RAGGED, 6, temperature=0, processors=[CORPUS, min_length.Config(1)], eos=EOS)
    for found in (plain, wide, long):
        for tokens in found.tokens:
            assert tokens == [EOS] or copy_constrained.reference([t for t in tokens if t != EOS], CORPUS) > 0
    assert all(len(tokens) > 1 for tokens in long.tokens)
    assert runnel.generate(model, RAGGED, drafter=Branching(None), **options).tokens == plain.tokens


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([[], []], "the corpus of copy_constrained must have at least one token; got none"),
        ([[1, 9]], r"the corpus of copy_constrained must be of tokens in \[0, 5\); got 9"),
    ],
)
def test_what_cannot_be_meant_is_refused(corpus, message):
    with pytest.raises(ValueError, match=message):
        runnel.generate(sharp(), [[1]], processors=[copy_constrained.Config(corpus)], eos=EOS)
