import pytest
import torch

from .support import close, mixer, normal, run


def test_with_a_slot_for_every_token_it_is_softmax_attention():
    """The paper's limit: token t overwrites slot t and leaves the others; the last token then attends to all."""
    made = mixer("gsa", head_dim=8, slots=6)
    q, k, v = [normal(1, 6, 1, 8, seed=s) for s in range(3)]
    write = torch.eye(6, dtype=torch.float64)[None, :, None]
    made._project = lambda x: (q, k, v, write, -1e3 * write)
    scores = torch.einsum("hk,thk->ht", q[0, -1], k[0, :])
    expected = torch.einsum("ht,thv->hv", scores.softmax(-1), v[0])
    close(run(made, normal(1, 6, 8))[:, -1], made._output(expected[None]))


def test_slots_are_running_means():
    """A write is as large as what was forgotten: constant keys and values come back, however many tokens."""
    made = mixer("gsa", slots=5)
    *_, v, write, log_keep = made._project(normal(1, 1, 8).expand(1, 2_000, 8))
    close(write + log_keep.exp(), torch.ones_like(write))
    made._output = lambda y: y.flatten(-2)
    close(run(made, normal(1, 1, 8).expand(1, 2_000, 8))[:, -1], v[:, -1].flatten(-2), bound=1e-6)


@pytest.mark.parametrize("options", [{"slots": 0}, {"temperature": 0.0}])
def test_impossible_options(options):
    with pytest.raises(ValueError, match="slots >= 1 and temperature > 0"):
        mixer("gsa", **options)
