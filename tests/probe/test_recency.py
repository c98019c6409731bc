"""Influence and likeness, where they are known by hand, and what polarised states do to both."""

import pytest
import torch

import runnel
from runnel import probe


def test_influence_of_a_window_ends_where_the_window_does():
    model = runnel.build("attention(window=3)", vocab_size=7, d_model=8).double()
    found = probe.influence_by_distance(model, torch.arange(7))
    assert (found[:3] > 0).all() and (found[3:] == 0).all()


def test_influence_is_the_norm_of_the_jacobian():
    model = runnel.build("gla", vocab_size=7, d_model=8).double()
    tokens = torch.tensor([3, 1, 4, 1])
    found, step = probe.influence_by_distance(model, tokens), 1e-6
    for distance in (0, 3):
        squares = 0.0
        for channel in range(8):
            sides = []
            for sign in (1, -1):
                moved = torch.zeros(1, 4, 8).double()
                moved[0, 3 - distance, channel] = sign * step
                hook = model.embed.register_forward_hook(lambda _, __, e, moved=moved: e + moved)
                sides.append(model.features(tokens[None])[0][0, -1].detach())
                hook.remove()
            squares += float(((sides[0] - sides[1]) / (2 * step)).square().sum())
        assert found[distance].item() == pytest.approx(squares**0.5, rel=1e-5)


def test_likeness_of_one_repeated_token_is_one_and_of_unit_vectors_zero():
    model = runnel.build("attention*2", vocab_size=8, d_model=8)
    assert probe.likeness_by_depth(model, torch.full((5,), 3))[0].item() == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        model.embed.weight.copy_(torch.eye(8))
    assert len(found := probe.likeness_by_depth(model, torch.arange(8))) == 3
    assert found[0].item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two tokens or more; got 1"):
        probe.likeness_by_depth(model, torch.arange(1))


def test_a_polarized_state_reaches_further():
    """Untrained, and with states that forget within a few tokens but for the one that never does."""
    tokens, far = torch.arange(64) % 7, {}
    for polarize in (False, True):
        model = runnel.build(f"mamba(polarize={polarize}, conv=1, d_state=4)", vocab_size=7, d_model=8).double()
        with torch.no_grad():
            model.mixers[0].dt_bias.fill_(2.0)
        far[polarize] = probe.influence_by_distance(model, tokens)[60].item()
    assert far[True] > 1e6 * far[False]
