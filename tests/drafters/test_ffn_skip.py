import pytest
import torch

import runnel
from runnel.drafters import ffn_skip
from runnel.links import EMBEDDING
from runnel.model import through


def model(pattern="(gla, mamba2)*3", **options):
    made = runnel.build(pattern, vocab_size=11, d_model=16, **options).double()
    with torch.no_grad():
        for layer in made.layers:
            layer.block.out.weight.mul_(8)
        made.head.logits.weight.mul_(5)
    return made


def tokens(batch=2, length=20):
    return torch.randint(0, 11, (batch, length), generator=torch.Generator().manual_seed(0))


def skipping(target, **options):
    return ffn_skip.Skipping(target, ffn_skip.Config(target, **options))


def test_a_threshold_of_one_is_the_target_to_the_bit():
    target = model()
    assert torch.equal(skipping(target, threshold=1.0)(tokens())[0], target(tokens())[0])


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_it_is_the_literal_loop(threshold):
    target = model()
    with torch.no_grad():
        for mixer in target.mixers:
            mixer.out.weight.zero_()
        made = skipping(target, threshold=threshold, warm=3)
        x, lineage = target.embed(tokens(1)), runnel.Lineage.sequence(1, 20)
        y, _, links = through(made.layers, x, made.init_state(1).layers, lineage, {EMBEDDING: x})
        wanted, skipped = ffn_skip.reference(made, x[0])
    torch.testing.assert_close(y[0], wanted, rtol=1e-12, atol=1e-12)
    assert links[ffn_skip.SKIPS][1][0].tolist() == skipped
    assert skipped[:3] == [0, 0, 0] and 0 < sum(skipped) < 17 * 3


def test_every_split_is_the_whole_and_states_have_the_target_s_shape():
    target = model()
    made = skipping(target, threshold=0.9)
    whole, state = made(tokens())
    pieces, at = [], None
    for piece in tokens().split([3, 1, 9, 7], dim=1):
        logits, at = made(piece, at)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-10, atol=1e-10)
    assert state.nbytes == target(tokens())[1].nbytes
    assert not torch.allclose(whole, target(tokens())[0])


def test_it_drafts_what_the_target_writes():
    target = model()
    plain = runnel.generate(target, [[1, 2, 3], [4]], max_new_tokens=20, seed=1)
    made = ffn_skip.Config(target, threshold=0.9, warm=0)
    drafted = runnel.generate(target, [[1, 2, 3], [4]], max_new_tokens=20, seed=1, drafter=made)
    assert drafted.tokens == plain.tokens
    assert 0 < drafted.stats["accepted"] < drafted.stats["drafted"]


def test_a_state_of_the_one_is_none_of_the_other(tmp_path):
    target = model()
    made = skipping(target)
    made(tokens())[1].save(tmp_path / "a.state")
    with pytest.raises(ValueError, match="model"):
        runnel.State.load(tmp_path / "a.state", target)


def test_what_cannot_be():
    target = model()
    with pytest.raises(ValueError, match=r"threshold in \[-1, 1\].*got .*threshold=2"):
        ffn_skip.Config(target, threshold=2)
    with pytest.raises(ValueError, match="a target with layers; got a str"):
        ffn_skip.Config("mamba2")
