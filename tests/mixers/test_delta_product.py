import pytest
import torch
from torch.nn.functional import normalize

from runnel import Lineage
from runnel.ops.delta import delta_scan
from runnel.ops.substeps import substeps

from .support import close, mixer, normal, run


def turn(angle: torch.Tensor) -> torch.Tensor:
    """Two unit keys whose reflections, one after the other, turn the plane by `angle`."""
    zero = torch.zeros_like(angle)
    return torch.stack([torch.stack([zero + 1, zero]), torch.stack([(angle / 2).cos(), (angle / 2).sin()])])


def test_two_reflections_count_modulo_three():
    """A turn by a third of a circle per token: after 3 n tokens the state is back, after others it is not.

    One factor alone is symmetric, and its powers cannot do it.
    """
    keys = turn(torch.tensor(2 * torch.pi / 3, dtype=torch.float64)).expand(1, 300, 2, 2)[..., None, :]
    twos, zeros = torch.full((1, 300, 2, 1), 2.0, dtype=torch.float64), torch.zeros(1, 300, 2, 1, dtype=torch.float64)
    memory = torch.eye(2, dtype=torch.float64)[None, None]
    query = torch.zeros(1, 300, 2, 1, 2, dtype=torch.float64)
    query[..., 0] = 1
    y, _ = substeps(delta_scan, (query, keys, torch.zeros_like(keys), twos, zeros), memory, Lineage.sequence(1, 300))
    read = y[0, :, 0, 0]  # the cosine of the turn so far
    close(read[2::3], torch.ones(100, dtype=torch.float64))
    close(read[0::3], torch.full((100,), -0.5, dtype=torch.float64))


def test_one_step_is_gated_deltanet():
    product, gated = mixer("delta_product", steps=1), mixer("gated_deltanet", beta_max=2.0)
    with torch.no_grad():
        gated.qkv.weight.copy_(product.inputs.project.weight)
        gated.conv_weight.copy_(product.inputs.conv_weight)
        gated.rates.weight.copy_(torch.cat([product.decay.weight, product.beta.weight]))
        for name in ("decay_bias", "log_a"):
            getattr(gated, name).copy_(getattr(product, name))
        gated.gate.weight.copy_(product.gate.weight)
        gated.out.weight.copy_(product.out.weight)
    x = normal(2, 100, 8)
    close(run(product, x), run(gated, x))


def test_keys_have_unit_length():
    made = mixer("delta_product", steps=3)
    _, k, _ = made.inputs.reference(normal(1, 20, 8))
    close(k, normalize(k, dim=-1))
    assert made._by_step(k).shape == (1, 20, 3, 1, 8)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="steps >= 1; got 0"):
        mixer("delta_product", steps=0)
    with pytest.raises(ValueError, match="0 < beta_max <= 2; got 0"):
        mixer("delta_product", beta_max=0)
