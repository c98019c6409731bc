"""The law of three tokens by 20,000 draws of the whole loop: every rule with every kind of drafter that it is for."""

from collections import Counter

import pytest

from runnel.drafters import auto_correct, draft_model, prompt_lookup
from runnel.generation import generate
from runnel.trees import acceptance_head, best_first, independent, stochastic_beam, template, without_replacement
from tests.decoding.support import CHI_SQUARE_99, Branching, chi_square, law_of, sharp
from tests.trees.support import head

DRAWS, PROMPT = 20_000, [0, 2, 1, 0, 2]
TREES = {
    "chain": "chain",
    "template": template.Config(((0,), (1,), (0, 0), (1, 0))),
    "without_replacement": without_replacement.Config((2, 2)),
    "stochastic_beam": stochastic_beam.Config(width=2),
    "best_first": best_first.Config(nodes=4),
    "independent": independent.Config(chains=3),
    "acceptance_head": acceptance_head.Config(head(), 0.087),
}
CASES = [
    ("rejection", "chain"),
    ("rejection", "acceptance_head"),
    ("recursive_rejection", "given"),
    ("recursive_rejection", "copied"),
    ("recursive_rejection", "masks"),
    *[("recursive_rejection", tree) for tree in TREES if tree not in ("chain", "acceptance_head")],
    ("spectr", "independent"),
    ("spectr", "given"),
    ("block", "chain"),
    ("block", "copied"),
    ("block", "best_first"),
    ("match", "without_replacement"),
]


def target():
    return sharp("mingru", vocab_size=3, scale=4.0)


def drafter_of(kind):
    if kind == "given":
        return Branching(3)
    if kind == "copied":
        return prompt_lookup.Config(min_ngram=1)
    if kind == "masks":
        return auto_correct.Config(mask=2, max_draft=2)
    return draft_model.Config(sharp("mingru", vocab_size=3, seed=1, scale=4.0), max_draft=2, tree=TREES[kind])


def statistic(rule, kind, draws=DRAWS):
    """Chi-square of texts of three tokens, with seeds 0, 1, ...; and how many drafts were accepted a draw."""
    options = {"seed": 0, "n": draws, "drafter": drafter_of(kind), "acceptance": rule}
    found = generate(target(), [PROMPT], 3, **options)
    law = law_of(target(), PROMPT, 3)
    assert min(law.values()) * draws > 5
    return chi_square(Counter(map(tuple, found.tokens)), law), found.stats["accepted"] / draws


@pytest.mark.thorough
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("rule", "kind"), CASES)
def test_what_is_drawn_follows_the_law(rule, kind):
    found, accepted = statistic(rule, kind)
    print(f"{rule}, {kind}: chi-square {found:.1f} at 26 degrees, {accepted:.2f} accepted")
    assert accepted > 0
    assert found < CHI_SQUARE_99[26]
