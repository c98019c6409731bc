"""What holds for every drafter that is trained: whose weights learn, what a folder says, that rounds leave nothing."""

import pytest
import torch

import runnel
from runnel import catalog, drafters, train
from runnel.generation import generate
from runnel.trained import frozen, is_drafter
from tests.decoding.support import CASES, RAGGED, sharp
from tests.trained.support import Forgetful, shaken

NAMES = [name for name in catalog.names("drafters") if getattr(catalog.page("drafters", name), "TRAINED", False)]
PATTERN = "mamba2, attention(window=5)"


def make(name, target=None):
    target = sharp(PATTERN) if target is None else target
    return catalog.make("drafters", drafters.Drafter, CASES[name](target))


class Tokens:
    """A source of rows of two tokens by turns, and of one batch that is held out."""

    vocab_size, facts = 5, {"name": "turns"}

    def batch(self, index):
        rows = (torch.arange(13)[None] + torch.arange(4)[:, None] + index) % 2 * 3
        return runnel.types.Batch(rows[:, :-1], rows[:, 1:])

    def valid(self):
        yield self.batch(0)


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_its_target_stays_to_the_bit(name, tmp_path):
    target = runnel.build("mingru, attention", vocab_size=5, d_model=16)
    before = {key: tensor.clone() for key, tensor in target.state_dict().items()}
    drafter = make(name, target)
    config = train.TrainConfig(steps=12, objective=name, lr=1e-2, valid_every=None, save_seconds=1e9)
    losses = []
    train.fit(drafter, Tokens(), tmp_path, config, lambda report: losses.append(report.loss))
    assert losses[-1] < losses[0]
    assert all(torch.equal(tensor, before[key]) for key, tensor in target.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.grad is not None for parameter in drafter.parameters())
    loaded = drafters.load(tmp_path, target)
    assert all(torch.equal(tensor, drafter.state_dict()[key]) for key, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_holds_all_of_it_but_its_target(name, tmp_path):
    target, other = sharp(PATTERN), sharp(PATTERN, seed=1)
    drafter = shaken(make(name))
    drafters.save(drafter, tmp_path)
    assert is_drafter(tmp_path)
    loaded = drafters.load(tmp_path, target)
    assert loaded.config.options() == drafter.config.options()
    options = {"max_new_tokens": 9, "decoder": "greedy"}
    first, again = [generate(target, RAGGED, drafter=each, **options) for each in (drafter, loaded)]
    assert first.tokens == again.tokens
    assert all(first.stats[key] == again.stats[key] for key in ("target_calls", "drafted", "accepted"))
    with pytest.raises(ValueError, match="was trained for another target: its fingerprint is"):
        drafters.load(tmp_path, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", ["match", "rejection"])
def test_what_it_drafts_depends_on_the_text_alone(name, rule):
    """Whatever earlier rounds drafted, and however much of it was accepted, alone or in a batch."""
    target = sharp(PATTERN)
    check = Forgetful(shaken(make(name)))
    generate(target, RAGGED, [25, 18, 20], drafter=check, temperature=1.3, acceptance=rule)
    assert check.rounds > 20 and check.drafted > 30


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tree", ["best_first", "template"])
def test_its_guesses_grow_into_any_tree(name, tree, tmp_path):
    target = sharp(PATTERN)
    drafters.save(shaken(make(name)), tmp_path)
    chain, branched = [drafters.load(tmp_path, target, shape) for shape in ("chain", tree)]
    plain = generate(target, RAGGED, 12, "greedy")
    found = [generate(target, RAGGED, 12, "greedy", drafter) for drafter in (chain, branched)]
    assert [each.tokens for each in found] == [plain.tokens] * 2
    assert found[1].stats["drafted"] > found[0].stats["drafted"]


@pytest.mark.parametrize("name", NAMES)
def test_same_arguments_same_weights(name):
    one, two = make(name), make(name)
    assert all(torch.equal(tensor, two.state_dict()[key]) for key, tensor in one.state_dict().items())


def test_a_folder_that_is_something_else(tmp_path):
    target = runnel.build("mingru", vocab_size=5, d_model=8)
    runnel.save(target, tmp_path / "model")
    assert not is_drafter(tmp_path / "model")
    with pytest.raises(ValueError, match="does not describe a trained drafter"):
        drafters.load(tmp_path / "model", target)
    drafters.save(make(NAMES[0], target), tmp_path / "one")
    (tmp_path / "one" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not describe a trained drafter"):
        drafters.load(tmp_path / "one", target)


def test_targets_that_have_no_drafter():
    page = catalog.page("drafters", NAMES[0])
    with pytest.raises(ValueError, match="a drafter must have a target of tokens"):
        page.Config(runnel.build("mingru", value_dim=2, d_model=8))
    with pytest.raises(ValueError, match=f"drafter '{NAMES[0]}' needs a target"):
        generate(sharp(), [[1]], drafter=NAMES[0])


def test_a_frozen_function_passes_gradients_and_takes_none():
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    torch.testing.assert_close(frozen(layer, x), layer(x))
    frozen(layer, x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(4, 3))
    assert layer.weight.grad is None and layer.bias.grad is None
