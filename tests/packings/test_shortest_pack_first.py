"""Rows of documents with little padding, and the loss and gradient that the documents have alone."""

from collections import Counter

import numpy as np
import pytest
import torch

import runnel
from runnel.objectives import next_token
from runnel.packings import fill, to_batch
from runnel.packings.shortest_pack_first import Config, pack, reference
from runnel.types import Batch


def skewed(count=400, capacity=128, seed=0):
    draws = np.random.default_rng(seed).lognormal(3.2, 0.8, count)
    return np.clip(draws, 2, capacity).astype(int).tolist()


@pytest.mark.parametrize("most", [None, 1, 2, 5])
def test_the_histogram_form_is_the_document_by_document_one(most):
    lengths = skewed()
    found = Counter(tuple(sorted(lengths[i] for i in row)) for row in pack(lengths, 128, Config(most)))
    wanted = Counter(tuple(sorted(row)) for row in reference(lengths, 128, most))
    assert sum(found.values()) == sum(wanted.values())
    assert Counter(map(sum, found.elements())) == Counter(map(sum, wanted.elements()))


def test_every_document_is_in_one_row_and_rows_are_full():
    lengths = skewed()
    rows = pack(lengths, 128)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 128 for row in rows)
    assert fill(rows, lengths, 128) > 0.95
    assert fill([[index] for index in range(len(lengths))], lengths, 128) < 0.5


@pytest.mark.parametrize("pattern", ["attention", "mamba2", "short_conv", "gru", "(gla, attention(window=4))"])
def test_packed_is_alone(pattern):
    torch.manual_seed(0)
    lengths = [5, 9, 3, 12, 2, 7, 4]
    documents = [torch.randint(0, 11, (length,)) for length in lengths]
    model = runnel.build(pattern, 11, 8).double()
    batch = to_batch(documents, pack(lengths, 16), 16)
    assert batch.n_targets == sum(lengths) - len(lengths)
    loss = next_token.loss(model, batch)
    loss.backward()
    packed = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    alone = sum(
        next_token.loss(model, Batch(d[None, :-1], d[None, 1:])) * (len(d) - 1) / batch.n_targets for d in documents
    )
    alone.backward()
    torch.testing.assert_close(loss, alone, rtol=0, atol=1e-10)
    for found, parameter in zip(packed, model.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=0, atol=1e-10)


def test_bad_lengths_and_options_are_refused():
    with pytest.raises(ValueError, match="1 to 8 tokens; document 1 has 9"):
        pack([3, 9], 8)
    with pytest.raises(ValueError, match="most >= 1; got 0"):
        Config(most=0)
