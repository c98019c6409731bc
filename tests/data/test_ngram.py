"""The n-gram baseline equals its literal loop, and the figures that models are held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runnel.data.baselines.ngram import bits_per_byte, reference

TRAIN = b"the cat sat on the mat and the dog sat on the log " * 8
HELD_OUT = b"the dog and the cat sat on a new \xff\x00 rug, the end"


@pytest.mark.parametrize("order", range(9))
def test_fast_form_is_the_reference(order: int) -> None:
    assert bits_per_byte(TRAIN, HELD_OUT, order)[order] == pytest.approx(reference(TRAIN, HELD_OUT, order), abs=1e-12)


def test_tiny_texts() -> None:
    for train in (b"a", b"ab", b"\xff\xff\xff"):
        for order in (1, 3, 8):
            expected = reference(train, b"ab\xff", order)
            assert bits_per_byte(train, b"ab\xff", order)[-1] == pytest.approx(expected, abs=1e-12)


def test_the_law_sums_to_one() -> None:
    law = [2 ** -bits_per_byte(TRAIN, bytes([value]), 4)[4] for value in range(256)]
    assert sum(law) == pytest.approx(1, abs=1e-9)


def test_random_bytes_cannot_be_compressed() -> None:
    noise = np.random.default_rng(0).integers(256, size=40_000, dtype=np.uint8).tobytes()
    assert min(bits_per_byte(noise[:30_000], noise[30_000:], 3)) >= 7.99


def test_published_anchor_figures(shared_data: Path) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_bytes()
    cut = int(len(text) * 0.9)
    bits = bits_per_byte(text[:cut], text[cut:], order=5)
    assert [round(value, 3) for value in bits] == [8.0, 4.829, 3.586, 2.956, 2.559, 2.408]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"order must be in \[0, 8\]; got 9"):
        bits_per_byte(b"a", b"b", 9)
    with pytest.raises(ValueError, match="got 0 and 1"):
        bits_per_byte(b"", b"b")
