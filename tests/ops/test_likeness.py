import pytest
import torch

from runnel.ops.likeness import Cumulative, Hamming, Ngram

BEGINNINGS = {
    0: [[]],
    3: [[0, 1, 2], [0, 1, 0], [2, 2, 2]],
}
OTHERS = [[0, 1, 2, 1], [0, 1, 0, 1, 0, 1], [2, 2, 2], [1], []]


@pytest.mark.parametrize("term", [Hamming(), Cumulative(1.5), Ngram(1), Ngram(2), Ngram(3), Ngram(5)])
@pytest.mark.parametrize("length", BEGINNINGS)
def test_all_at_once_is_the_sum_over_pairs(term, length):
    beginnings = BEGINNINGS[length]
    pairs = [[sum(term.of([*text, token], other) for other in OTHERS) for token in range(4)] for text in beginnings]
    found = term.of_all(beginnings, OTHERS, 4)
    torch.testing.assert_close(found, torch.tensor(pairs, dtype=torch.float64), rtol=0, atol=1e-12)


def test_likeness_by_hand():
    assert [Hamming().of([0, 3, 2], other) for other in OTHERS] == [1, 0, 1, 0, 0]
    assert Ngram(2).of([9, 0, 1], OTHERS[1]) == 3
    assert Ngram(2).of([1], OTHERS[1]) == 0
    assert Cumulative(2.0).of([0, 1, 5], [0, 1, 5]) == 1
    assert Cumulative(2.0).of([0, 1, 5], [0, 2]) == pytest.approx(2.718281828459045**-1)
