"""A small teacher, and what every conversion is held to."""

from fractions import Fraction

import torch

import runnel
from runnel import conversions
from runnel.lineage import Lineage
from runnel.trained import pupil

PATTERN = "attention(heads=4, head_dim=8, kv_heads=2)*2"


def teacher(pattern=PATTERN, d_model=32, **options):
    """In float64, with scales of its norms that are not 1."""
    model = runnel.build(pattern, vocab_size=16, d_model=d_model, seed=3, **options).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.mul_(1 + 0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def convert(model, to, keep="0"):
    return pupil.begin(model, conversions.make(to), Fraction(keep))


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@torch.no_grad()
def check_against_reference(page, to, pattern=PATTERN, d_model=32):
    """Every converted layer computes what the page's loop makes of the attention's own weights."""
    model = teacher(pattern, d_model)
    made = convert(model, to)
    x = inputs(2, 9, d_model)
    for layer in made.replaced:
        mixer = made.mixers[layer]
        y, _ = mixer(x, mixer.init_state(2), Lineage.sequence(2, 9))
        wanted = page.reference(model.mixers[layer], mixer, x)
        assert wanted.abs().max() > 0.01
        torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9)
    return model, made
