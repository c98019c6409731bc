import pytest
import torch

from runnel import DraftTree, build

from .support import close, mixer, normal, run


def test_begins_as_linear_attention_and_adds_the_past_values_of_a_head():
    made = mixer("linear_attention_conv", head_dim=4, conv=3)
    x = normal(1, 12, 8)
    before = run(made, x)
    with torch.no_grad():
        made.conv_weight.copy_(normal(2, 3))
    v = torch.nn.functional.pad(made.qkv(x)[..., 16:], (0, 0, 2, 0)).unflatten(-1, (2, 4))
    near = sum(v[:, w : w + 12] * made.conv_weight[:, w, None] for w in range(3))
    close(run(made, x) - before, made.out(near.flatten(-2)))


def test_a_tree_is_not_its_flat_order():
    """Siblings do not mix: verifying equals each path, while the same tokens read as one sequence do not."""
    model = build("linear_attention_conv(conv=4)", vocab_size=5, d_model=8, n_layers=1, seed=0).double()
    with torch.no_grad():
        model.layers[0].mixer.conv_weight.normal_()
        state = model(torch.tensor([[1, 2]]))[1]
        tokens = [3, 4, 0]
        tree = model.verify(state, DraftTree(tokens, [-1, 0, 0], [0, 0, 0])).logits
        path, flat = model(torch.tensor([[3, 0]]), state)[0], model(torch.tensor([tokens]), state)[0]
    close(tree[2], path[0, 1])
    assert not torch.allclose(tree[2], flat[0, 2])


def test_impossible_options():
    with pytest.raises(ValueError, match="conv >= 1; got 0"):
        mixer("linear_attention_conv", conv=0)
