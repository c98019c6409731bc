import pytest
import torch

import runnel

from .support import close, mixer, normal, run


def test_it_is_attention_with_products_of_features_as_weights():
    made = mixer("t2r", head_dim=8, features=5)
    x = normal(2, 20, 8)
    q, k, v = made._project(x, torch.arange(20)[None])
    weights = torch.einsum("bthf,bshf->bhts", q, k).tril()
    means = weights / weights.sum(-1, keepdim=True)
    close(run(made, x), made.out(torch.einsum("bhts,bshk->bthk", means, v).flatten(-2)))


def test_a_token_that_has_no_feature_in_common_with_the_past_reads_the_mean_of_it():
    made, x = mixer("t2r", head_dim=8, features=3), normal(1, 6, 8)
    with torch.no_grad():
        made.phi.bias.fill_(-100.0)
    v = made.qkv(x).chunk(3, dim=-1)[-1]
    close(run(made, x), made.out(v.cumsum(1) / torch.arange(1, 7)[:, None]))


def test_a_text_leaves_a_matrix_of_the_size_of_the_features():
    model = runnel.build("t2r(features=4)", vocab_size=9, d_model=16)
    sizes = []
    for length in (10, 100):
        with torch.no_grad():
            sizes.append(model(torch.zeros(1, length, dtype=torch.long))[1].nbytes)
    assert sizes[0] == sizes[1]


def test_mistakes():
    with pytest.raises(ValueError, match="t2r needs features >= 1; got 0"):
        runnel.build("t2r(features=0)", vocab_size=9, d_model=8)
