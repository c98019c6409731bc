import pytest
import torch

from runnel.trees import best_first
from tests.trees.support import draws, grown, law


def test_it_is_the_tree_of_the_definition():
    for seed in range(5):
        for draw in draws(seed):
            for nodes, depth, trust in ((1, 3, 1.0), (7, 2, 0.5), (12, 4, 1.0)):
                _, paths, _ = grown(best_first.Config(nodes, trust), draw, depth)
                assert paths == best_first.reference(law, draw, nodes, depth, trust)
                assert len(paths) == nodes


def test_a_sure_drafter_gives_a_chain_and_an_unsure_one_a_bush():
    _, fresh = draws()
    sure, unsure = torch.tensor([9.0] + [0.0] * 7).double(), torch.zeros(8).double()
    for trust in (0.0, 0.5, 1.0):
        assert grown(best_first.Config(4, trust), fresh, 4, lambda path: sure)[0].parents == [-1, 0, 1, 2]
    assert grown(best_first.Config(4, trust=1.0), fresh, 4, lambda path: unsure)[0].parents == [-1] * 4
    assert grown(best_first.Config(4, trust=0.0), fresh, 4, lambda path: unsure)[0].parents == [-1, 0, 1, 2]


def test_it_ends_when_nothing_is_left_to_draw():
    two = torch.tensor([1.0, 0.0]).double()
    _, paths, _ = grown(best_first.Config(30), draws()[1], 2, lambda path: two)
    assert sorted(paths) == [(0,), (0, 0), (0, 1), (1,), (1, 0), (1, 1)]
    for draw in draws(temperature=0):  # a law without a choice is ranked by its scores
        assert grown(best_first.Config(30), draw, 2, lambda path: two)[1][:2] == [(0,), (0, 0)]
        torch.testing.assert_close(draw.chances(two, 0), two.softmax(-1))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="nodes must be at least 1; got 0"):
        best_first.Config(0)
    with pytest.raises(ValueError, match="trust must be at least 0; got -1"):
        best_first.Config(trust=-1)
