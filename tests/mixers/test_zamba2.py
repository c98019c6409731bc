import pytest
import torch

import runnel

from .support import mixer, normal, run

PATTERN = "(zamba2(share='a') > mamba2, zamba2(share='b') > mamba2)*2"


def test_blocks_are_shared_and_saved_once(tmp_path):
    model = runnel.build(PATTERN, vocab_size=5, d_model=8)
    first, second, third, fourth = [made.first for made in model.mixers]
    assert first.block is third.block and second.block is fourth.block and first.block is not second.block
    assert first.block_adapter is not third.block_adapter and first.out is not third.out
    runnel.save(model, tmp_path)
    loaded = runnel.load(tmp_path)
    assert loaded.mixers[0].first.block is loaded.mixers[2].first.block
    tokens = torch.tensor([[1, 2, 3, 4]])
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])
    numbers = sum(p.numel() for p in model.parameters())
    assert numbers * 4 < (tmp_path / "model.safetensors").stat().st_size < numbers * 4 + 20_000


def test_it_reads_the_embedding_beside_the_stream():
    made, x = mixer("zamba2"), normal(1, 6, 8)
    other = x.clone()
    other[:, 3] += 1
    found, changed = run(made, x, embedding=x), run(made, x, embedding=other)
    torch.testing.assert_close(found[:, :3], changed[:, :3], rtol=0, atol=1e-12)
    assert (found - changed)[:, 3:].abs().amax(-1).min() > 1e-6


def test_what_it_makes_goes_through_the_layer_behind_it():
    """With a Mamba-2 that writes nothing the stream is the embedding still."""
    model = runnel.build("zamba2 > mamba2+none", vocab_size=5, d_model=8)
    with torch.no_grad():
        model.mixers[0].second.out.weight.zero_()
        tokens = torch.tensor([[1, 2, 3]])
        torch.testing.assert_close(model.features(tokens)[0], model.norm(model.embed(tokens)))


def test_layers_that_share_must_be_alike():
    with pytest.raises(ValueError, match=r"layers cannot be linked: layer 1 shares zamba2\(share='a'\)"):
        runnel.build("zamba2 > mamba2, zamba2(rank=4) > mamba2", vocab_size=5, d_model=8)
