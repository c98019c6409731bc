import math

import pytest
import torch

from runnel import Lineage
from runnel.ops.outer import outer_scan
from runnel.ops.rope import turn_pairs

from .support import close, mixer, normal, run


def fixed(made, **values):
    """lambda (share) and the turn of every token set to constants."""
    original = made._input

    def shifted(u):
        z, x, b, c, dt, log_decay, share, turn = original(u)
        share = torch.full_like(share, values["share"]) if "share" in values else share
        turn = torch.full_like(turn, values["theta"]) if "theta" in values else turn
        return z, x, b, c, dt, log_decay, share, turn

    made._input = shifted
    return made


def test_lambda_of_one_without_turns_is_mamba_twos_recurrence():
    made = fixed(mixer("mamba3", d_state=8), share=1.0, theta=0.0)
    u = normal(2, 50, 8)
    z, x, b, c, dt, log_decay, _, _ = made._input(u)
    memory = made.init_state(2).memory
    y, _ = outer_scan(c[..., 0, :], b[..., 0, :], dt[..., None] * x, log_decay, memory, Lineage.sequence(2, 50))
    close(run(made, u), made._output(y[:, :, None], x, z))


def test_turns_give_the_state_a_period():
    """Turning by a quarter of a circle per token: a state without decay is what it was after four, and its negative
    after two: complex eigenvalues, which no decay has.
    """
    made = fixed(mixer("mamba3", d_state=8), share=1.0, theta=math.pi / 2)
    u = normal(1, 1, 8).expand(1, 9, 8)
    with torch.no_grad():
        _, _, b, c, _, _, _, turn = made._input(u)
        phi = turn.cumsum(1)
        b, c = [turn_pairs(part[..., 0, :], phi)[..., :4] for part in (b, c)]
        scores = torch.einsum("bthn,bjhn->bhtj", c, b)[0, 0]
    close(scores[4, 0], scores[0, 0])
    close(scores[2, 0], -scores[0, 0])
    close(scores[8, 3], scores[5, 0])


def test_the_trapezoid_is_of_second_order():
    """h' = -h + cos t: halving the step divides the error by about four with lambda = 1/2, by two with Euler's rule."""

    def error(count: int, share: float) -> float:
        dt, h = 3.0 / count, torch.zeros((), dtype=torch.float64)
        time = torch.arange(count + 1, dtype=torch.float64) * dt
        u = time.cos()
        for t in range(1, count + 1):
            h = math.exp(-dt) * h + (1 - share) * dt * math.exp(-dt) * u[t - 1] + share * dt * u[t]
        exact = (math.cos(3.0) + math.sin(3.0) - math.exp(-3.0)) / 2
        return abs(float(h) - exact)

    assert 3.5 < error(50, 0.5) / error(100, 0.5) < 4.5
    assert 1.7 < error(50, 1.0) / error(100, 1.0) < 2.3


def test_ranks_that_are_alike_are_one():
    """B and C of both ranks the same, x halved for each and the outputs halved: rank 1, but for half of D x."""
    one, two = mixer("mamba3", d_state=8), mixer("mamba3", d_state=8, rank=2)
    parts = one.input.weight.split(one.sizes)
    with torch.no_grad():
        for name, value in one.named_parameters():
            if name not in ("input.weight", "b_bias", "c_bias"):
                two.get_parameter(name).copy_(value)
        two.input.weight.copy_(torch.cat([torch.cat([p, p]) if i in (2, 3) else p for i, p in enumerate(parts)]))
        two.skip.mul_(2)
    x = normal(2, 20, 8)
    close(run(two, x), run(one, x))


def test_more_ranks_keep_the_state_s_size():
    sizes = [mixer("mamba3", d_state=8, rank=rank).init_state(1).memory.shape for rank in (1, 4)]
    assert sizes[0] == sizes[1]


def test_a_state_size_that_does_not_pair_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, and rank >= 1; got 6, 1"):
        mixer("mamba3", d_state=6)
    with pytest.raises(ValueError, match="got 64, 0"):
        mixer("mamba3", rank=0)
