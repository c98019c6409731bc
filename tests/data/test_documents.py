"""Rows of whole documents: every token learned once an epoch, as in its document alone, with few empty columns."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

import runnel
from runnel import data
from runnel.codecs.bytes import Bytes
from runnel.objectives import next_token
from runnel.types import IGNORE, Batch

LENGTH, ROWS = 64, 8
PACKINGS = ["shortest_pack_first", "least_squares", "buckets"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """300 documents of skewed lengths, some longer than a row; bytes are drawn, so that documents are told apart."""
    where, rng = tmp_path_factory.mktemp("docs"), np.random.default_rng(0)
    for number, size in enumerate(np.clip(rng.lognormal(2.7, 0.8, 300), 1, 200).astype(int)):
        (where / f"{number:03}.txt").write_bytes(rng.integers(97, 123, size).astype(np.uint8).tobytes())
    return where


def source(folder, packing, **options):
    if packing == "least_squares":
        pytest.importorskip("scipy", reason="least squares need scipy")
    options = {"valid_fraction": 0.0, "packing": packing, **options}
    return data.open_source(folder, Bytes(), LENGTH, ROWS, **options)


def epoch(opened):
    """Batches until as many targets are read as an epoch has, and how many that is."""
    wanted = sum(max(0, path.stat().st_size - 1) for path in opened.stream.paths)
    found = []
    while sum(batch.n_targets for batch in found) < wanted:
        found.append(opened.batch(len(found)))
    return found, wanted


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_token_but_the_first_of_a_document_is_a_target_once(folder, packing):
    opened = source(folder, packing)
    batches, wanted = epoch(opened)
    pairs = Counter()
    for batch in batches[:-1] if packing != "buckets" else batches:
        keep = batch.targets != IGNORE
        pairs.update(zip(batch.inputs[keep].tolist(), batch.targets[keep].tolist(), strict=True))
    there = Counter()
    for path in opened.stream.paths:
        text = path.read_bytes()
        there.update(pairwise(text))
    assert not pairs - there  # nothing twice, nothing across a border
    assert sum((there - pairs).values()) == wanted - pairs.total()
    if packing == "buckets":
        assert pairs == there


@pytest.mark.parametrize("packing", PACKINGS)
def test_columns_are_full(folder, packing):
    facts = source(folder, packing).facts
    assert facts["padding_before"] > 0.5
    assert facts["padding"] < (0.1 if packing == "buckets" else 0.05)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_batch_is_a_function_of_its_index(folder, packing):
    late, early = source(folder, packing, seed=3), source(folder, packing, seed=3)
    wanted = [early.batch(index) for index in range(90)]
    for index in (80, 3, 41):
        assert late.batch(index).inputs.equal(wanted[index].inputs)
        assert late.batch(index).targets.equal(wanted[index].targets)
    assert not source(folder, packing, seed=4).batch(0).inputs.equal(wanted[0].inputs)


@pytest.mark.parametrize("packing", ["shortest_pack_first", "buckets"])
def test_losses_are_those_of_documents_alone(folder, packing):
    model = runnel.build("gla, attention", 256, d_model=8, seed=0).double()
    batch = source(folder, packing).batch(1)
    found = next_token.loss(model, batch) * batch.n_targets
    wanted = found.new_zeros(())
    segments = torch.zeros_like(batch.inputs) if batch.segments is None else batch.segments
    for row in range(len(batch.inputs)):
        for segment in segments[row].unique():
            inside = segments[row] == segment
            alone = Batch(batch.inputs[row][inside][None], batch.targets[row][inside][None])
            if alone.n_targets:
                wanted = wanted + next_token.loss(model, alone) * alone.n_targets
    assert found.item() == pytest.approx(wanted.item(), abs=1e-10)


def test_what_makes_no_sense_is_refused(folder):
    with pytest.raises(ValueError, match="packing=buckets needs documents: a file, a folder or -; got recall"):
        data.open_source("recall", Bytes(), LENGTH, ROWS, packing="buckets")
    with pytest.raises(ValueError, match="did you mean 'shortest_pack_first'"):
        source(folder, "shortest_pack_frist")
    with pytest.raises(ValueError, match="rows of 2 tokens or more; rows have 1"):
        data.open_source(folder, Bytes(), 1, ROWS, packing="buckets")
