import torch

import runnel
from runnel.blocks.sinkhorn_moe import Config, SinkhornMoE
from runnel.ops.balance import sinkhorn

PATTERN = "(mamba+none, mamba+sinkhorn_moe(experts=4))"


def block(**options):
    torch.manual_seed(0)
    return SinkhornMoE(6, Config(**{"experts": 4, **options})).double()


def skewed(rows=4, length=50):
    """Tokens that nearly all like one expert best."""
    x = torch.randn(rows, length, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x + 5 * block().router.weight[2].detach()


def load(made, x):
    scores = made.router(x.flatten(0, 1))
    chosen = made._balanced(scores) if made.training else scores.argmax(-1)
    return chosen.bincount(minlength=4) / len(chosen)


def test_a_plan_has_its_sums():
    scores = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plan = sinkhorn(scores, 60).exp()
    torch.testing.assert_close(plan.sum(1), torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((3,), 4.0, dtype=torch.float64))
    ratio = (plan.log() - scores)[:, 1] - (plan.log() - scores)[:, 0]  # only rows and columns are scaled
    torch.testing.assert_close(ratio, ratio[:1].expand(12))


def test_outside_training_every_token_goes_its_own_way():
    made, x = block(), skewed()
    torch.testing.assert_close(made(x), made.reference(x), rtol=1e-9, atol=1e-9)
    assert load(made, x).max() > 0.5 and load(made, x).min() < 0.05


def test_in_training_the_load_is_even_and_the_agreement_is_told():
    made, x = block(), skewed()
    made.train()
    assert load(made, x).max() < 0.35
    assert 0 < made.agreement(x) < 0.6 and block(rounds=0).agreement(x) == 1
    assert not torch.allclose(made(x), block()(x))


def test_a_fresh_model_is_causal_and_a_trained_one_is_once_it_is_evaluated():
    model = runnel.build(PATTERN, vocab_size=11, d_model=6).double()
    text = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(0))
    for made in (model, model.train().eval()):
        whole, _ = made(text)
        _, state = made(text[:, :4])
        torch.testing.assert_close(made(text[:, 4:], state)[0], whole[:, 4:], rtol=1e-9, atol=1e-9)


def test_gradients_reach_the_router():
    made, x = block().train(), skewed()
    made(x).square().sum().backward()
    assert made.router.weight.grad.abs().max() > 1e-6
