"""Shapes of rows that use up the histogram of lengths."""

import numpy as np
import pytest

from runnel.packings import fill
from runnel.packings.least_squares import Config, exact_shapes, first_fit, pack, reference, solve

pytest.importorskip("scipy", reason="least squares need scipy")


def test_every_document_is_in_one_row_and_rows_are_full():
    lengths = np.clip(np.random.default_rng(0).lognormal(2.7, 0.7, 600), 2, 64).astype(int).tolist()
    rows = pack(lengths, 64)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 64 for row in rows)
    assert fill(rows, lengths, 64) > 0.97


def test_few_documents_need_few_rows():
    rng = np.random.default_rng(1)
    for _ in range(20):
        lengths = rng.integers(1, 11, 7).tolist()
        assert reference(lengths, 10) <= len(pack(lengths, 10)) <= reference(lengths, 10) + 1


def test_a_histogram_that_shapes_fill_exactly_is_used_up():
    lengths = [5, 5, 6, 4, 6, 4, 3, 3, 4, 10]
    assert len(pack(lengths, 10)) == 5 == reference(lengths, 10)
    shapes = exact_shapes(10, 2)
    histogram = np.zeros(10)
    histogram[[2, 6]] = 4.0
    assert solve(shapes, histogram, Config())[shapes.index((7, 3))] == pytest.approx(4)


def test_shapes_fill_a_row_and_none_is_named_twice():
    shapes = exact_shapes(12, 3)
    assert len(set(shapes)) == len(shapes) == 1 + 6 + 12
    assert all(sum(shape) == 12 and list(shape) == sorted(shape, reverse=True) for shape in shapes)
    assert first_fit([7, 5, 3], 10) == [(7, 3), (5,)]


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="depth 1, 2 or 3"):
        Config(depth=4)
