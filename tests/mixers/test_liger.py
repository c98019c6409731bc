import pytest
import torch
from torch.nn.functional import logsigmoid

import runnel

from .support import close, mixer, normal, run


def test_it_is_the_mean_of_a_window_of_attention_and_of_a_gated_sum():
    made = mixer("liger", head_dim=8, window=1)
    x = normal(2, 20, 8)
    q, k, v = made.qkv(x).chunk(3, dim=-1)
    rates = logsigmoid(k).cumsum(1) / 16
    weights = (rates[:, :, None] - rates[:, None]).exp() * (q.softmax(-1)[:, :, None] * k.softmax(-1)[:, None])
    close(run(made, x), made.out(0.5 * (weights.sum(-1).tril() @ v + v)))  # a window of one token is its value


def test_a_text_leaves_a_window_and_a_matrix():
    model = runnel.build("liger(window=4)*2", vocab_size=9, d_model=16)
    sizes = []
    for length in (10, 100):
        with torch.no_grad():
            sizes.append(model(torch.zeros(1, length, dtype=torch.long))[1].nbytes)
    assert sizes[0] == sizes[1]


def test_mistakes():
    with pytest.raises(ValueError, match="even head_dim and kv_heads that divide 2; got 4, 3"):
        runnel.build("liger(heads=2, head_dim=4, kv_heads=3)", vocab_size=9, d_model=8)
