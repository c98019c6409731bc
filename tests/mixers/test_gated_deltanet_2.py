import pytest
import torch

from .support import close, mixer, normal, run


def test_with_one_gate_for_all_channels_it_is_kimi_delta_attention():
    """Weights of kda, whose beta is one number per head, give its outputs up to the gate of the output."""
    kda, made = mixer("kda", head_dim=4), mixer("gated_deltanet_2", head_dim=4)
    with torch.no_grad():
        made.inputs.load_state_dict(kda.inputs.state_dict())
        made.decay.load_state_dict(kda.decay.state_dict())
        shared = kda.beta.weight.repeat_interleave(4, dim=0)
        made.erase.weight.copy_(shared)
        made.write.weight.copy_(shared)
        made.out.weight.copy_(kda.out.weight)
    for one in (kda, made):
        one._output = lambda y, _, one=one: one.out(y.flatten(-2))
    x = normal(2, 100, 8)
    close(run(made, x), run(kda, x))


def test_what_is_erased_and_what_is_written_are_chosen_apart():
    """A key is shown twice. Erasing without writing empties its place, writing without erasing adds to it."""
    made = mixer("gated_deltanet_2", conv=1)
    key, value = torch.zeros(1, 2, 1, 8).double(), torch.zeros(1, 2, 1, 8).double()
    key[..., 3] = 1
    value[0, 0, 0, 1], value[0, 1, 0, 2] = 5, 7
    gates = torch.tensor([0.0, 1.0]).double()[None, :, None, None].expand(1, 2, 1, 8)

    def read(erase, write):
        made.inputs.forward = lambda x, tail, lineage: (key, key, value, tail)
        made._rates = lambda x: (erase, write, torch.zeros(1, 2, 1, 8).double())
        made._output = lambda y, _: y.flatten(-2)
        return run(made, torch.zeros(1, 2, 8).double())[0, 1, [1, 2]].tolist()

    assert read(gates, 1 - gates) == [0, 0]
    assert read(0 * gates, torch.ones_like(gates)) == [5, 7]
    assert read(gates, torch.ones_like(gates)) == [0, 7]


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="rank >= 1; got 0"):
        mixer("gated_deltanet_2", rank=0)
    with pytest.raises(ValueError, match=r"0 < beta_max <= 2; got 2\.5"):
        mixer("gated_deltanet_2", beta_max=2.5)
