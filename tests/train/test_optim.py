import math

import pytest
import torch
from small_run import make_model

from runnel.train import TrainConfig, optim


def backward(model):
    tokens = torch.arange(24).view(2, 12) % 7
    logits, _ = model(tokens)
    logits.square().mean().backward()


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_optimizer(name):
    model = make_model()
    optimizers = optim.build_optimizers(model, TrainConfig(steps=1, optimizer=name))
    held = [parameter for o in optimizers for group in o.param_groups for parameter in group["params"]]
    assert len(held) == len(list(model.parameters()))
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in model.parameters()}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_only_where_the_model_asks_for_it(name):
    model = make_model()
    before = weights(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers = optim.build_optimizers(model, TrainConfig(steps=1, optimizer=name, weight_decay=0.5))
    optim.set_lr(optimizers, 0.1)
    for optimizer in optimizers:
        optimizer.step()
    after = weights(model)
    kinds = set()
    for group in model.parameter_groups():
        kinds.add(group["weight_decay"])
        for parameter_name, _ in group["params"]:
            factor = 1 - 0.1 * group["lr_scale"] * 0.5 if group["weight_decay"] else 1.0
            torch.testing.assert_close(after[parameter_name], before[parameter_name] * factor)
    assert kinds == {True, False}


def test_lr_scale():
    model = make_model()
    groups = model.parameter_groups()
    groups[0]["lr_scale"] = 0.25
    model.parameter_groups = lambda: groups
    (optimizer,) = optim.build_optimizers(model, TrainConfig(steps=1))
    optim.set_lr([optimizer], 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1 * group["lr_scale"] for group in groups]


def test_muon_moves_a_matrix_by_an_orthogonal_one_of_the_size_of_an_adamw_step():
    model = make_model()
    before = weights(model)
    backward(model)
    optimizers = optim.build_optimizers(model, TrainConfig(steps=1, optimizer="muon", weight_decay=0.0))
    optim.set_lr(optimizers, 0.1)
    for optimizer in optimizers:
        optimizer.step()
    after = weights(model)
    matrices = [name for group in model.parameter_groups() if group["matrix"] for name, _ in group["params"]]
    assert matrices
    for name in matrices:
        moved = (before[name] - after[name]) / 0.1
        unit = moved / (0.2 * math.sqrt(max(moved.shape)))
        singular = torch.linalg.svdvals(unit)
        assert float(singular[: len(singular) // 2].min()) > 0.6  # Newton-Schulz brings them near 1, not to 1
        assert float(singular.max()) < 1.3


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_by_name_survives_another_order_of_the_groups(name):
    config = TrainConfig(steps=1, optimizer=name)
    first, second = make_model(noisy=False), make_model(noisy=False)
    optimizers = optim.build_optimizers(first, config)
    for _ in range(2):
        backward(first)
        for optimizer in optimizers:
            optimizer.step()
    state = {key: value.clone() for key, value in optim.named_state(optimizers).items()}
    second.load_state_dict(first.state_dict())
    groups = [{**group, "params": group["params"][::-1]} for group in second.parameter_groups()][::-1]
    second.parameter_groups = lambda: groups
    others = optim.build_optimizers(second, config)
    optim.load_named_state(others, state)
    for model, mine in ((first, optimizers), (second, others)):
        model.zero_grad()
        backward(model)
        for optimizer in mine:
            optimizer.step()
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())
    assert all(
        torch.equal(value, optim.named_state(others)[key]) for key, value in optim.named_state(optimizers).items()
    )
