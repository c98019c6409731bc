import random

import pytest
import torch

from runnel.draft import Draft
from runnel.drafters import suffix
from runnel.generation import generate
from runnel.measured import LONGEST_PAUSE
from runnel.policies import Round, goodput
from runnel.rows import Forest, Row, Said, Walk
from tests.decoding.support import RAGGED, Branching, sharp

PLAIN, PER_GUESS = 1.0, 0.1


class Likely:
    """A world where calls cost what they should and guesses are right with a given chance, which the drafter may have
    `known`; no clock is read.
    """

    def __init__(self, policy, chance, draft_seconds=0.0, length=6, trust=0, known=False):
        self.known = known
        self.policy, self.chance, self.draft_seconds = policy, chance, draft_seconds
        self.length, self.trust, self.rng = length, trust, random.Random(0)
        self.seconds = self.tokens = 0.0
        self.drafted, self.resting, self.asked = [], 0, 0

    def round(self):
        if self.resting:
            self.resting, self.seconds, self.tokens = self.resting - 1, self.seconds + PLAIN, self.tokens + 1
            self.drafted.append(0)
            return
        self.asked += 1
        budget = self.policy.budgets([0], [100])[0]
        count = min(budget, self.length)
        drafted = self.draft_seconds * count
        draft = Draft.chain([1] * count, 0 if self.known else self.trust, [self.chance] * count if self.known else ())
        draft = self.policy.trimmed([0], [draft])[0] if count else draft
        row = Row(0, 0, [0], 0, 10**9, frozenset(), None)
        forest = Forest([row], [draft])
        walk = Walk(row, 0, forest, Said(torch.zeros(0, 2), torch.zeros(0, 1)))
        for node in range(1, len(forest.tokens)):
            if self.rng.random() >= self.chance:
                break
            walk.path.append(node)
        guesses = len(draft.tokens)
        verify = PLAIN + (0.1 + PER_GUESS * guesses if guesses else 0.0)
        self.policy.observe(Round([0], forest, [walk], drafted, verify, drafted + verify))
        self.resting = self.policy.rest()
        self.seconds += drafted + verify
        self.tokens += len(walk.path)
        self.drafted.append(guesses)

    def speed(self, rounds=600):
        for _ in range(rounds):
            self.round()
        return self.tokens / self.seconds


def policy():
    return goodput.Goodput(goodput.Config())


def test_right_guesses_are_all_verified_and_wrong_ones_hardly_ever():
    sure = Likely(policy(), 1.0)
    assert sure.speed() > 0.95 * 7 / (PLAIN + 0.1 + 6 * PER_GUESS)
    assert set(sure.drafted[-100:]) <= {0, 6}
    lost = Likely(policy(), 0.0)
    assert lost.speed() > 0.97
    assert sum(lost.drafted[-200:]) < 40


@pytest.mark.parametrize("chance", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_never_slower_than_plain_and_near_the_best_fixed_length(chance):
    found = Likely(policy(), chance).speed(2000)
    best = max(
        (1 + sum(chance**i for i in range(1, n + 1))) / (PLAIN + (0.1 + PER_GUESS * n if n else 0)) for n in range(7)
    )
    assert found > 0.97 * PLAIN
    assert found > 0.93 * best


@pytest.mark.parametrize("chance", [0.05, 0.1, 0.3, 0.9])
def test_chances_that_are_known_need_no_trying(chance):
    found = Likely(policy(), chance, known=True)
    learnt = Likely(policy(), chance)
    assert found.speed(60) >= learnt.speed(60)
    if chance <= 0.1:
        assert sum(found.drafted) == 0


def test_costs_that_were_seen_by_chance_never_make_a_call_free():
    """Calls that hang now and then make a line that falls below zero; its floor is a plain call."""
    chosen, rng = policy(), random.Random(0)
    world = Likely(chosen, 0.9, known=True)
    for _ in range(100):
        world.round()
        chosen.costs.note(1, 12, False, 60.0 * rng.random())
        assert min(chosen.costs.curve(1, 16, False)) >= chosen.costs.seconds(1, 0) > 0


def test_a_dear_drafter_rests_when_it_does_not_pay():
    dear = Likely(policy(), 0.3, draft_seconds=1.0)
    assert dear.speed(3000) > 0.97
    pays = Likely(policy(), 0.95, draft_seconds=0.05)
    assert pays.speed(600) > 2.0


def test_where_nothing_pays_hardly_anybody_is_asked_and_where_it_does_everybody_is():
    lost = Likely(policy(), 0.05, known=True)
    assert lost.speed(900) == 1.0 and sum(lost.drafted) == 0
    assert lost.asked < 900 / (LONGEST_PAUSE + 1) + 20
    lost.chance = 1.0
    before = lost.asked
    lost.speed(LONGEST_PAUSE + 50)
    assert lost.asked - before >= 50 and lost.drafted[-40:] == [6] * 40
    sure = Likely(policy(), 0.95, known=True)
    sure.speed(300)
    assert sure.asked == 300


def test_trust_is_told_apart():
    chosen, rng = policy(), random.Random(1)
    worlds = {trust: Likely(chosen, chance, trust=trust) for trust, chance in ((2, 0.05), (20, 0.95))}
    for _ in range(800):
        worlds[rng.choice([2, 20])].round()
    assert sum(worlds[20].drafted[-100:]) > 8 * sum(worlds[2].drafted[-100:])


def test_what_is_verified_is_the_best_of_all_sets():
    chosen = policy()
    for _ in range(5):
        Likely(chosen, 0.5).round()
    draft = Draft([1, 2, 3, 4], [-1, 0, 1, 2])
    kept = chosen.trimmed([0], [draft])[0]
    expected = goodput.reference(1, chosen.chances.reach(draft), lambda guesses: chosen.costs.seconds(1, guesses))
    assert kept.tokens == [draft.tokens[node] for node in expected]


def test_the_text_is_that_of_plain_decoding():
    plain = generate(sharp(), RAGGED, 40, seed=2)
    for drafter in (suffix.Config(min_match=1), Branching(None), "auto"):
        found = generate(sharp(), RAGGED, 40, seed=2, drafter=drafter, length="goodput")
        assert found.tokens == plain.tokens
        assert found.stats["drafted"] > 0


def test_costs_that_were_measured_before_are_what_is_expected():
    found = goodput.Config.measured(sharp())
    assert found.first_cost >= 1 and 0 <= found.first_slope < 10
    dear, cheap = (goodput.Goodput(goodput.Config(first_cost=1.5, first_slope=slope)) for slope in (0.5, 0.01))
    for chosen in (dear, cheap):
        Likely(chosen, 0.5).round()  # a plain one
        assert chosen.costs.curve(1, 4, False)[4] == pytest.approx(PLAIN * (1.5 + 4 * chosen.config.first_slope))
    draft = Draft.chain([1] * 6, chances=[0.8] * 6)
    assert len(dear.trimmed([0], [draft])[0].tokens) == 0 and len(cheap.trimmed([0], [draft])[0].tokens) == 6


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="first_cost must be at least 1; got 0"):
        goodput.Config(first_cost=0)
    with pytest.raises(ValueError, match="first_slope must be at least 0; got -1"):
        goodput.Config(first_slope=-1)
