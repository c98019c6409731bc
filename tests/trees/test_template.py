import pytest

from runnel.trees import template
from tests.trees.support import draws, grown, law


def test_it_is_the_tree_of_the_definition():
    config = template.Config()
    for seed in range(5):
        for draw in draws(seed):
            expected = template.reference(law, draw, config.nodes)
            for budget in (1, 2, 4):
                draft, paths, calls = grown(config, draw, budget)
                kept = [ranks for ranks in config.nodes if len(ranks) <= budget]
                assert sorted(paths) == sorted(tuple(expected[ranks]) for ranks in kept)
                assert calls == budget
                assert not draft.independent


def test_what_the_law_cannot_give_is_left_out():
    _, fresh = draws(top_k=1)
    _, paths, _ = grown(template.Config(((0,), (1,), (0, 0), (1, 0))), fresh, 2)
    assert [len(path) for path in paths] == [1, 2]


def test_a_greedy_row_is_guessed_by_rank_with_every_rule():
    config = template.Config(((0,), (1,), (0, 0)))
    paths = [grown(config, draw, 2)[1] for draw in draws(temperature=0)]
    likeliest = law(()).topk(2).indices.tolist()
    assert paths[0] == paths[1]
    assert [path[0] for path in paths[0]] == [*likeliest, likeliest[0]]


@pytest.mark.parametrize("nodes", [((1,),), ((0,), (1, 0)), ((),), ((0,), (-1,))])
def test_shapes_that_are_no_trees_are_refused(nodes):
    with pytest.raises(ValueError, match="nodes must be paths of ranks, with the one before each"):
        template.Config(nodes)
