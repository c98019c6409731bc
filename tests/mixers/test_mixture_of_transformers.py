import pytest
import torch

import runnel
from runnel import native

from .support import close, mixer, normal, run


def model(pattern="(mixture_of_transformers(first=[4])+none)*2", **options):
    return runnel.build(pattern, vocab_size=8, d_model=8, **options).double()


def test_banks_that_are_alike_are_one_transformer():
    dense, mixed = model("(mixture_of_transformers+none)*2"), model()
    with torch.no_grad():
        for name, value in mixed.named_parameters():
            parts = name.split(".")
            value.copy_(dense.get_parameter(".".join("0" if i == 4 else p for i, p in enumerate(parts))))
    tokens = torch.randint(0, 8, (2, 9), generator=torch.Generator().manual_seed(0))
    close(mixed(tokens)[0], dense(tokens)[0])


def test_a_token_goes_through_the_weights_of_its_modality_alone():
    made = model()
    text = torch.tensor([[0, 3, 1, 2]])
    made(text)[0].sum().backward()
    found = {name: p.grad is not None and bool(p.grad.any()) for name, p in made.layers.named_parameters()}
    assert {name.split(".")[3] for name, has in found.items() if has} == {"0"}


def test_attention_reads_all_modalities():
    made, text = model(), torch.tensor([[0, 5, 1]])
    other = made(torch.tensor([[0, 6, 1]]))[0]
    assert not torch.allclose(made(text)[0][:, 2], other[:, 2])


def test_norms_are_the_last_of_what_it_adds():
    made, x = mixer("mixture_of_transformers"), normal(1, 5, 8)
    with torch.no_grad():
        for norm in (made.norm[0], made.block_norm[0]):
            assert run(made, x).any()
            norm.weight.zero_()
    assert not run(made, x).any()


@pytest.mark.skipif(not native.available(), reason="the extension was not built")
def test_it_is_packed():
    made = model().float()
    packed = runnel.pack(made, "f32")
    assert set(packed.fallbacks) == {"layer 0", "layer 1"} and "'tokens'" in packed.fallbacks["layer 0"]
    tokens = torch.tensor([[0, 6, 1, 5, 4]])
    torch.testing.assert_close(packed(tokens)[0], made(tokens)[0])


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"rising first tokens, at least 1; got \[5, 4\]"):
        model("mixture_of_transformers(first=[5, 4])+none")
    with pytest.raises(
        ValueError, match="layers cannot be linked: layer 1 takes the link 'tokens'; given are embedding"
    ):
        runnel.build("gla, mixture_of_transformers(first=[4])+none", value_dim=2, d_model=8)
