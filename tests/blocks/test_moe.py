import pytest
import torch

from runnel.blocks.moe import Config, MoE


def block(**options) -> MoE:
    torch.manual_seed(0)
    return MoE(6, Config(**options)).double()


@pytest.mark.parametrize(("experts", "active"), [(1, 1), (4, 1), (4, 2), (8, 8)])
def test_equals_every_token_alone(experts, active):
    made, x = block(experts=experts, active=active), torch.randn(3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(made(x), made.reference(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"rescaled": False},
        {"shared": 5},
        {"shared": 5, "shared_gate": True, "hidden": 7},
        {"scores": "sigmoid", "scale": 2.5},
        {"gated": False, "activation": "squared_relu", "shared": 5},
        {"groups": 4, "reached": 2, "active": 3},
    ],
)
def test_what_published_models_differ_in(options):
    made, x = block(**options), torch.randn(2, 5, 6, dtype=torch.float64)
    assert not torch.allclose(made(x), block()(x))
    torch.testing.assert_close(made(x), made.reference(x), rtol=1e-9, atol=1e-9)


def test_a_correction_decides_who_is_chosen_and_not_how_much():
    made, x = block(corrected=True, scores="sigmoid", rescaled=False), torch.randn(1, 20, 6, dtype=torch.float64)
    with torch.no_grad():
        made.correction[3] = 5.0
    weights, chosen = made._route(x[0])
    assert (chosen == 3).any(-1).all()
    torch.testing.assert_close(weights, made.router(x[0]).sigmoid().gather(1, chosen))


def test_experts_come_from_the_groups_that_are_reached():
    made, x = block(groups=4, reached=2, active=3), torch.randn(1, 50, 6, dtype=torch.float64)
    p = made.router(x[0]).softmax(-1)
    sums = p.unflatten(-1, (4, 2)).sum(-1)
    for row, chosen in zip(sums, made._route(x[0])[1], strict=True):
        assert {int(e) // 2 for e in chosen} <= set(row.topk(2).indices.tolist())


@pytest.mark.parametrize(
    "options", [{"groups": 3}, {"groups": 8}, {"groups": 4, "active": 3}, {"groups": 2, "reached": 3}]
)
def test_groups_that_do_not_fit(options):
    with pytest.raises(ValueError, match="moe needs groups of two or more of its 8 experts"):
        block(**options)


def test_a_gate_without_a_shared_expert():
    with pytest.raises(ValueError, match="a shared expert for its shared_gate; got shared=0"):
        block(shared_gate=True)


def test_routing_sees_one_token_only():
    """The same token is routed alike in any company: decoding equals training."""
    made, x = block(), torch.randn(1, 40, 6, dtype=torch.float64)
    torch.testing.assert_close(made(x)[:, 7:8], made(x[:, 7:8]), rtol=1e-9, atol=1e-9)


def test_balance_is_the_gradient_of_switchs_loss_and_leaves_the_output_alone():
    x = torch.randn(1, 30, 6, dtype=torch.float64)
    with_loss, without = block(balance=0.5), block(balance=0.0)
    assert torch.equal(with_loss(x), without(x))
    grads = [torch.autograd.grad(m(x).sum(), m.router.weight)[0] for m in (with_loss, without)]
    p = without.router(x[0]).softmax(-1)
    share = torch.zeros_like(p).scatter(1, p.topk(2).indices, 1.0).mean(0) / 2
    (expected,) = torch.autograd.grad(0.5 * 8 * (share * p.mean(0)).sum(), without.router.weight)
    torch.testing.assert_close(grads[0] - grads[1], expected, rtol=1e-9, atol=1e-9)


def test_training_with_the_balance_loss_spreads_the_load():
    """A router that sends everything to one expert is brought back by the balance gradient alone."""
    made = block(balance=1.0, active=1, experts=4)
    with torch.no_grad():
        made.router.weight[0] += 2.0
    x = torch.rand(1, 400, 6, dtype=torch.float64)

    def load() -> float:
        return float(torch.bincount(made._route(x[0])[1][:, 0], minlength=4).max()) / 400

    before, optimizer = load(), torch.optim.Adam([made.router.weight], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        (made(x) * 0).sum().backward()
        optimizer.step()
    assert before > 0.9 and load() < 0.7


def test_more_active_than_experts():
    with pytest.raises(ValueError, match="1 <= active <= experts; got 3 of 2"):
        block(experts=2, active=3)
