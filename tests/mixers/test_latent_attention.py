import pytest
import torch

from runnel.state import leaves

from .support import close, mixer, normal, run


def test_equals_keys_and_values_of_every_head():
    """The weights of keys and values stand in the query and the output: the same as making keys and values."""
    for options in ({}, {"heads": 3, "head_dim": 5, "rotated": 2, "value_dim": 4, "rank": 6, "query_rank": 7}):
        made, x = mixer("latent_attention", **options), normal(2, 9, 8)
        close(run(made, x), made.reference(x))


def test_remembers_one_short_vector_per_token():
    from runnel import Lineage

    made = mixer("latent_attention", heads=4, head_dim=6, rank=5, rotated=2)
    _, memory = made(normal(1, 7, 8), made.init_state(1), Lineage.sequence(1, 7))
    k, v, _ = leaves(memory)
    assert (k.shape, v.shape) == ((1, 7, 1, 5 + 2), (1, 7, 1, 5))


def test_without_positions_the_order_of_the_past_is_nothing():
    x = normal(1, 5, 8)
    other = x[:, [1, 0, 3, 2, 4]]
    free, turned = mixer("latent_attention", rope_base=None), mixer("latent_attention")
    close(run(free, x)[:, -1], run(free, other)[:, -1])
    assert not torch.allclose(run(turned, x)[:, -1], run(turned, other)[:, -1])


@pytest.mark.parametrize(("options", "message"), [({"rank": 0}, "at least 1"), ({"rotated": 3}, "even number")])
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        mixer("latent_attention", **options)
