import math
from collections import Counter
from functools import cache

import pytest
import torch

import runnel
from runnel.decoders import sample
from runnel.drafters import Seen, jacobi
from runnel.drafters.jacobi import Config, Jacobi
from runnel.generation import generate
from runnel.rows import FreshDraw, Row, RowDraw
from tests.decoding.support import CHI_SQUARE_99, RAGGED, chi_square, law_of, sharp

PROMPT = (1, 0)


class Likeliest:
    def along(self, logits):
        return logits.argmax(-1).tolist()


@pytest.mark.parametrize("window", [1, 2, 3])
def test_the_law_is_that_of_the_model_with_every_window(window):
    """The paper's rule, all drafts and outcomes summed."""
    model = sharp("mingru", vocab_size=2, scale=10.0)

    @cache
    def law(text):
        with torch.no_grad():
            return model(torch.tensor([text]))[0][0, -1].softmax(-1).tolist()

    found, wanted = jacobi.reference(law, PROMPT, 4, window), law_of(model, PROMPT, 4)
    assert found.keys() == wanted.keys()
    assert all(math.isclose(found[text], wanted[text], abs_tol=1e-10) for text in wanted)
    assert max(wanted.values()) < 0.6


@pytest.mark.parametrize(("rule", "window", "neighbour"), [("rejection", 1, 0), ("rejection", 2, 1), ("block", 2, 1)])
def test_the_law_of_four_tokens_under_rules_that_accept_by_chance(rule, window, neighbour):
    model, draws = sharp("mingru, attention", vocab_size=2, scale=6.0), 800
    options = {"drafter": Config(window=window, neighbour=neighbour), "acceptance": rule, "n": draws}
    found = generate(model, [list(PROMPT)], 4, **options)
    assert found.stats["accepted"] > draws / 2
    law = law_of(model, PROMPT, 4)
    assert chi_square(Counter(map(tuple, found.tokens)), law) < CHI_SQUARE_99[15]


def test_places_are_drawn_evenly_where_nothing_is_known():
    """Neighbour 0, once it is known how many tokens there are."""
    drafter, logits = Jacobi(Config(window=2, neighbour=0)), torch.randn(2, 9, dtype=torch.float64)
    memory = drafter.begin([5, 7], Likeliest())
    assert drafter.propose(memory, 2).logits == [None, None]
    drafter.look_back(memory, Seen([7, 7], [-1, 0], [0], logits, logits))
    drafter.advance(memory, [3])
    draft = drafter.propose(memory, 2)
    assert torch.equal(draft.logits[0], logits[1]) and torch.equal(draft.logits[1], torch.zeros(9).double())


def test_the_laws_of_the_places_ahead_are_those_said_after_the_accepted_path():
    drafter = Jacobi(Config(window=4))
    memory = drafter.begin([5, 7], Likeliest())
    first = drafter.propose(memory, 3)
    assert (first.tokens, first.parents, first.logits) == ([7, 7, 7], [-1, 0, 1], [None] * 3)
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drafter.look_back(memory, Seen([7, 7, 7, 7, 7], [-1, 0, 1, 2, 3], [0, 1], logits, logits))
    drafter.advance(memory, [7, 3])
    draft = drafter.propose(memory, 9)
    guesses = logits[2:].argmax(-1).tolist()  # after the rejected node and those below it
    assert draft.tokens == [*guesses, guesses[-1]] and draft.parents == [-1, 0, 1, 2]
    assert all(torch.equal(law, said) for law, said in zip(draft.logits, logits[2:], strict=False))
    assert draft.logits[3] is None
    drafter.look_back(memory, Seen([3], [-1], [0], logits[:1], logits[:1]))
    assert memory.laws == []


def test_a_place_not_yet_guessed_repeats_its_neighbour():
    drafter = Jacobi(Config(window=4, neighbour=3))
    memory = drafter.begin([1, 2, 3, 4], Likeliest())
    assert drafter.propose(memory, 9).tokens == [2, 3, 4, 2]
    assert drafter.propose(drafter.begin([5, 6], Likeliest()), 3).tokens == [5, 5, 6]


@pytest.mark.parametrize("kind", [RowDraw, FreshDraw])
@pytest.mark.parametrize("processors", [(), ("repetition_penalty",)])
def test_places_drawn_at_once_are_those_drawn_one_by_one(kind, processors):
    decoder = sample.Sample(sample.Config(temperature=0.9, top_k=3, processors=processors))
    draw = kind(Row(0, 7, [1, 2], 2, 50, frozenset(), decoder))
    logits = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens = draw.along(logits)
    assert tokens == [draw(own, ahead, tokens[:ahead]) for ahead, own in enumerate(logits)]
    assert len(set(tokens)) > 1


WIDTH = 4


@pytest.fixture(scope="module")
def of_grids():
    """A model of grids of a few columns, in which a token is the one above it nine times in ten."""
    torch.manual_seed(0)
    model = runnel.build("mamba2", vocab_size=8, d_model=16, n_layers=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(80):
        tokens = torch.randint(8, (16, 32))
        for place in range(WIDTH, 32):
            stays = torch.rand(16) < 0.9
            tokens[:, place] = torch.where(stays, tokens[:, place - WIDTH], tokens[:, place])
        loss = torch.nn.functional.cross_entropy(model(tokens[:, :-1])[0].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.double()


@pytest.mark.parametrize("rule", ["match", "rejection"])
def test_locally_redundant_text_takes_fewer_passes_than_tokens(of_grids, rule):
    per_call = {}
    for neighbour in (1, WIDTH):
        config = Config(window=6, neighbour=neighbour)
        found = generate(of_grids, RAGGED[2:], 150, drafter=config, acceptance=rule)
        if rule == "match":
            assert found.tokens == generate(of_grids, RAGGED[2:], 150).tokens
        per_call[neighbour] = 150 / found.stats["target_calls"]
    assert per_call[WIDTH] > 1.5
    assert per_call[WIDTH] > per_call[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window must be at least 1; got 0"),
        ({"neighbour": -1}, "neighbour must be at least 0; got -1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Config(**options)
