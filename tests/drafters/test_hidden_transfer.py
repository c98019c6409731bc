import pytest
import torch

from runnel.drafters import hidden_transfer
from runnel.generation import generate
from runnel.state import leaves
from runnel.types import Batch
from tests.decoding.support import RAGGED, sharp
from tests.trained.support import shaken

PATTERN = "mingru, attention(window=4), mamba2"


def make(**options):
    return shaken(hidden_transfer.HiddenTransfer(hidden_transfer.Config(sharp(PATTERN), **options)))


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_laws_are_those_of_the_pseudo_vectors_after_the_whole_text(depth):
    drafter, laws = make(depth=depth), []
    drafter.law = lambda hidden: laws.append(type(drafter).law(drafter, hidden)) or laws[-1]
    text = RAGGED[2]
    written = generate(drafter.target, [text], 12, "greedy", drafter)
    whole, read = [*text, *written.tokens[0]], []
    for at in range(len(text), len(whole)):  # every place that a round may have begun at
        read.append(hidden_transfer.reference(drafter, whole[:at]))
    assert len(laws) > 3
    for law in laws:
        assert any(torch.allclose(law[0], wanted, rtol=0, atol=1e-9) for wanted in read)


@torch.no_grad()
def test_drafting_leaves_the_state_as_it_was():
    drafter = make()
    _, before = drafter.target(torch.tensor([[1, 2]]))
    _, state = drafter.target(torch.tensor([[3]]), before)
    kept = [leaf.clone() for leaf in leaves(state.layers)]
    memory = drafter.begin([1, 2, 3, 4], lambda logits, ahead, path: int(logits.argmax()))
    memory.place, memory.behind = (state, 0), ((before, 0), [3])
    assert len(drafter.propose(memory, budget=9).tokens) == 4
    assert all(torch.equal(leaf, was) for leaf, was in zip(leaves(state.layers), kept, strict=True))
    assert int(state.lengths[0]) == 3


@torch.no_grad()
@pytest.mark.parametrize("segments", [None, torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * 7])])
def test_training_sees_what_drafting_does(segments):
    drafter = make(transfers=3)
    tokens = torch.randint(0, 5, (2, 8), generator=torch.Generator().manual_seed(0))
    batch, wanted = Batch(tokens[:, :-1], tokens[:, 1:], segments), {1: [], 2: [], 3: []}
    for row in (0, 1):
        documents = [(0, 7)] if segments is None or row else [(0, 3), (3, 7)]
        for first, end in documents:
            for place in range(first, end):
                laws = hidden_transfer.reference(drafter, batch.inputs[row, first : place + 1].tolist())
                for head in wanted:
                    if place + head < end:
                        wanted[head].append(laws[head - 1])
    for guess in drafter.guesses(batch):
        torch.testing.assert_close(guess.logits, torch.stack(wanted[guess.head]), rtol=0, atol=1e-9)


def test_it_has_no_weights_but_the_transfers():
    drafter = make(transfers=3)
    assert sorted(drafter.state_dict()) == [f"transfers.{i}.weight" for i in range(3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfers": 0}, "transfers must be at least 1; got 0"),
        ({"depth": 3}, r"depth must lie in \[0, 3\), the target's layers; got 3"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hidden_transfer.Config(sharp(PATTERN), **options)
