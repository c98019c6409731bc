"""The law of three tokens, summed over every outcome of the rule's and the drafter's chances, is that of the model."""

import pytest

from runnel import catalog
from runnel.acceptance import Acceptance
from runnel.trees import TreeBuilder, best_first, calibrated, independent, template, without_replacement
from tests.decoding.enumeration import accepted, plain_law, tables, written_law

LOSSLESS = [name for name in catalog.names("acceptance") if catalog.page("acceptance", name).LOSSLESS]
RULES = [name for name in LOSSLESS if not catalog.make("acceptance", Acceptance, name).shares_noise]
TREES = {
    "chain": ("chain", (1, 1)),
    "template": (template.Config(((0,), (1,), (0, 0))), (2, 1)),
    "calibrated": (calibrated.Config([[0.6, 0.3], [0.5, 0.1]], nodes=3), (2, 1)),
    "without_replacement": (without_replacement.Config((2, 1)), (2, 1)),
    "all_of_the_vocabulary": (without_replacement.Config((3,)), (3,)),
    "best_first": (best_first.Config(nodes=3), (3, 3)),
    "independent": (independent.Config(chains=2), (1, 1)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tree", TREES)
def test_the_law_of_three_tokens_is_that_of_the_model(tree, rule):
    config, counts = TREES[tree]
    target, drafter = tables(seed=len(tree))
    found = written_law(
        catalog.make("acceptance", Acceptance, rule),
        catalog.make("trees", TreeBuilder, config),
        target,
        drafter,
        counts,
    )
    for text, p in plain_law(target).items():
        assert abs(found[text] - p) < 1e-10, text


def test_a_wrong_rule_is_found_out():
    """Siblings without replacement, judged as if each were drawn from the whole law, give another law."""
    target, drafter = tables(seed=3)
    rule = catalog.make("acceptance", Acceptance, "spectr")
    builder = catalog.make("trees", TreeBuilder, without_replacement.Config((2,)))

    class Mistaken(type(builder)):
        def grow(self, sketch, draw, budget):
            sketch.independent = True
            return super().grow(sketch, draw, budget)

    found = written_law(rule, Mistaken(builder.config), target, drafter, (2,), length=2)
    assert max(abs(found[text] - p) for text, p in plain_law(target, 2).items()) > 1e-3


def test_siblings_that_differ_are_accepted_more_often_than_independent_ones():
    """Exact means of one round at the same number of nodes, by the same rule."""
    rule = catalog.make("acceptance", Acceptance, "recursive_rejection")
    differing = catalog.make("trees", TreeBuilder, without_replacement.Config((2,)))
    independently = catalog.make("trees", TreeBuilder, independent.Config(2))
    for seed in range(10):
        laws = tables(seed=seed, sharpness=3.0)
        found = [accepted(rule, builder, *laws, (2,), length=2) for builder in (differing, independently)]
        assert found[0] > found[1]
