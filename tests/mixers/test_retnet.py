import pytest
import torch

from runnel.ops.rope import rope

from .support import close, mixer, normal, run


def test_equals_the_parallel_form_of_the_paper():
    """Eq. 5: (Q K^T * D) V with D_nm = gamma^(n-m) for n >= m."""
    made = mixer("retnet", head_dim=2)
    x = normal(2, 150, 8)
    q, k = [part.unflatten(-1, (4, 2)) for part in made.qk(x).chunk(2, dim=-1)]
    positions = torch.arange(150)[None]
    q, k = rope(q, positions) * 2**-0.5, rope(k, positions)
    v = made.v(x).unflatten(-1, (4, 4))
    gamma = 1 - 2.0 ** (-5 - torch.arange(4, dtype=torch.float64))
    distance = (torch.arange(150)[:, None] - torch.arange(150)).double()
    decay = (gamma[:, None, None] ** distance.clamp(min=0)).tril()
    y = torch.einsum("bthk,bjhk,htj,bjhv->bthv", q, k, decay, v)
    close(run(made, x), made._output(y, x))


def test_rotation_makes_scores_depend_on_the_distance_only():
    """The same two tokens, anywhere after nothing: without decay the output is the same up to the unit of the norm."""
    made = mixer("retnet", head_dim=4)
    q, k, _ = made._project(normal(1, 1, 8).expand(1, 40, 8), torch.arange(40)[None])
    scores = torch.einsum("thk,jhk->htj", q[0], k[0])
    for distance in (0, 1, 7):
        close(scores.diagonal(-distance, 1, 2), scores[:, distance, :1].expand(-1, 40 - distance))


@pytest.mark.parametrize(
    ("options", "message"), [({"head_dim": 1}, "even head_dim"), ({"expand_v": 0}, "expand_v >= 1; got 0")]
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        mixer("retnet", **options)
