"""A pupil is its teacher but for the converted layers, and an ordinary model for everyone else."""

from fractions import Fraction

import pytest
import torch

import runnel
from runnel import conversions, train
from runnel.codecs.bytes import Bytes
from runnel.data import open_source
from runnel.objectives import attention_transfer, logits_kl
from runnel.trained.pupil import begin, kept

CONVERSIONS = tuple(runnel.catalog.names("conversions"))


@pytest.fixture(scope="module")
def teacher():
    return runnel.build("attention(heads=4, head_dim=8, kv_heads=2)*4", vocab_size=16, d_model=32, seed=1)


def pupil(teacher, to="gla", keep="1/4"):
    return begin(teacher, conversions.make(to), Fraction(keep))


@pytest.mark.parametrize(
    ("layers", "share", "stay"),
    [(4, "1/4", [3]), (4, "1/2", [1, 3]), (8, "1/4", [3, 7]), (5, "2/5", [2, 4]), (4, "0", []), (3, "1", [0, 1, 2])],
)
def test_layers_that_stay_are_evenly_spaced(layers, share, stay):
    assert kept(layers, Fraction(share)) == stay


def test_all_but_the_new_mixers_is_the_teachers_to_the_bit(teacher):
    made = pupil(teacher)
    assert made.replaced == (0, 1, 2)
    theirs = dict(teacher.named_parameters())
    for name, parameter in made.named_parameters():
        new = name.startswith(tuple(f"layers.{i}.mixer." for i in made.replaced))
        assert parameter.requires_grad == new
        assert new or torch.equal(parameter, theirs[name])


def test_keeping_all_but_one_changes_only_that_layer(teacher):
    made = pupil(teacher, keep="3/4")
    assert made.replaced == (0,) and made.config.pattern.count("attention") == 3


@pytest.mark.parametrize("to", CONVERSIONS)
def test_it_is_saved_as_an_ordinary_model_and_writes(teacher, to, tmp_path):
    made = pupil(teacher, to).eval()
    runnel.save(made, tmp_path)
    loaded = runnel.load(tmp_path).eval()
    assert type(loaded) is runnel.Model and loaded.fingerprint() == made.fingerprint()
    tokens = torch.arange(12)[None] % 16
    with torch.no_grad():
        whole, _ = loaded(tokens)
        state, steps = None, []
        for piece in tokens.split([5, 1, 1, 5], dim=1):
            logits, state = loaded(piece, state)
            steps.append(logits)
        torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-4)
    prompt = [[1, 2, 3, 1, 2, 3, 1, 2]]
    greedy = runnel.generate(loaded, prompt, max_new_tokens=12, decoder="greedy")
    drafted = runnel.generate(loaded, prompt, max_new_tokens=12, decoder="greedy", drafter="prompt_lookup")
    assert greedy.tokens == drafted.tokens and len(greedy.tokens[0]) == 12


@pytest.mark.parametrize("objective", ["attention_transfer", "logits_kl"])
def test_teaching_lowers_the_loss_and_touches_only_the_new_mixers(teacher, objective, tmp_path):
    source = open_source("recall:pairs=2,vocab=16,valid_batches=1", Bytes(), length=16, batch_size=8)
    made, batch = pupil(teacher, "mamba2"), next(iter(source.valid()))
    loss = {"attention_transfer": attention_transfer, "logits_kl": logits_kl}[objective].loss
    before = float(loss(made, batch).detach())
    config = train.TrainConfig(steps=30, objective=objective, lr=3e-3, valid_every=None)
    train.fit(made, source, tmp_path, config)
    assert float(loss(made, batch).detach()) < 0.8 * before
    theirs = dict(teacher.named_parameters())
    kept_ = [n for n, p in made.named_parameters() if not p.requires_grad]
    assert kept_ and all(torch.equal(dict(made.named_parameters())[n], theirs[n]) for n in kept_)


def test_a_result_can_be_converted_further(teacher):
    half = pupil(teacher, "gla", "1/2")
    assert half.replaced == (0, 2)
    rest = pupil(half, "mamba2", "1/2")
    assert rest.replaced == (1,) and [m.__class__.__name__ for m in rest.mixers].count("Attention") == 1


def test_frames_and_tied_heads_are_kept():
    frame = {"tied": True, "place": "around", "norm": "layer"}
    model = runnel.build("attention, mingru+none", vocab_size=9, d_model=16, frame=frame)
    made = pupil(model, "gated_deltanet", "0")
    assert made.config.frame == model.config.frame and made.head.logits.weight is made.embed.weight
    assert torch.equal(made.embed.weight, model.embed.weight) and made.config.pattern.endswith("mingru+none")


def test_mistakes(teacher):
    with pytest.raises(ValueError, match="must have attention layers; got 'mingru'"):
        pupil(runnel.build("mingru", vocab_size=9, d_model=16))
    for share in ("-1/4", "5/4"):
        with pytest.raises(ValueError, match=r"keep must be a share in \[0, 1\]; got"):
            pupil(teacher, keep=share)
    with pytest.raises(ValueError, match="leaves none to convert"):
        pupil(teacher, keep="1")
    with pytest.raises(ValueError, match="attention cannot become 'mingru'"):
        pupil(teacher, "mingru")
    for objective in (attention_transfer, logits_kl):
        with pytest.raises(ValueError, match="needs a model with a teacher"):
            objective.loss(teacher, None)
