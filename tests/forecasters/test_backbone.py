import pytest
import torch
from forecasters.support import a_window, mean_error, parts, seasonal

from runnel import catalog
from runnel.forecasters.backbone import EMBEDDINGS, Config
from runnel.mixer import Mixer
from runnel.windows import FitConfig, Window, WindowShape, build


def small(**options):
    return Config(**{"pattern": "mingru", "d_model": 16, "patch": 6, "stride": 4, "dropout": 0.0, **options})


@pytest.mark.parametrize("embed", EMBEDDINGS)
@pytest.mark.parametrize("pattern", ["mingru", "mamba2, attention"])
def test_every_embedding_gives_k_numbers_per_value(embed, pattern):
    shape = WindowShape(15, 4, channels=3, past=2, static=1, outputs=2)
    features = build(small(embed=embed, pattern=pattern), shape)(a_window(shape, dtype=torch.float32))
    assert features.shape == (3, 4, 3, 2) and bool(features.isfinite().all())


@pytest.mark.parametrize("mixer", catalog.names("mixers"))
def test_every_mixer_is_a_backbone(mixer):
    """Found by looking at the folder: a step of training moves the forecast, which stays finite."""
    shape = WindowShape(20, 3, channels=2)
    places = getattr(catalog.class_in(catalog.page("mixers", mixer), Mixer), "places", ("{}",))
    config = Config(places[0].replace("{}", mixer), "value", d_model=16, dropout=0.0)
    if mixer == "gold":
        with pytest.raises(ValueError, match="layer 0 takes the link 'tokens'; given are embedding"):
            build(config, shape)  # it keeps tokens, and a window has none
        return
    model = build(config, shape)
    window = a_window(shape, dtype=torch.float32)
    before = model.point(window)
    train, valid = parts(seasonal(rows=60), shape)
    model.fit(train, valid, FitConfig(steps=2, valid_every=2, batch_size=4, valid_windows=4, lr=1e-2))
    after = model.point(window)
    assert bool(after.isfinite().all()) and not torch.equal(before, after)


def test_channels_apart_do_not_see_each_other_and_channels_mixed_do():
    shape = WindowShape(15, 4, channels=3)
    window = a_window(shape, dtype=torch.float32)
    other = window.history.clone()
    other[..., 2] += torch.randn(15)
    for embed, apart in (("patch", True), ("binned", True), ("value", False), ("inverted", False)):
        model = build(small(embed=embed), shape).eval()
        same = torch.allclose(model.point(window)[..., 0], model.point(Window(other))[..., 0], atol=1e-6)
        assert same == apart, embed


def test_variates_have_no_order():
    shape = WindowShape(15, 4, channels=2)
    window = a_window(shape, dtype=torch.float32)
    model = build(small(embed="inverted"), shape).eval()
    turned = model.point(Window(window.history.flip(2))).flip(2)
    assert torch.allclose(model.point(window), turned, atol=1e-6)


def test_patches_end_with_the_newest_row():
    model = build(small(), WindowShape(15, 4))
    patches = model.patches(torch.arange(15.0)[None])
    assert patches[0, -1].tolist() == [9, 10, 11, 12, 13, 14]
    assert patches[0, 0].tolist() == [0, 0, 0, 0, 1, 2]
    assert patches[0, 1].tolist() == [1, 2, 3, 4, 5, 6]


def test_learns_a_season():
    shape = WindowShape(24, 6, channels=2)
    train, valid = parts(seasonal(), shape)
    model = build(small(), shape)
    model.fit(train, valid, FitConfig(steps=150, lr=1e-2, valid_every=50, batch_size=32))
    assert mean_error(model, valid) < 0.05 < mean_error(build("last_value", shape), valid)


def test_refuses_what_there_is_not():
    with pytest.raises(ValueError, match="embed of backbone must be one of value, patch, inverted, binned; got 'word'"):
        Config(embed="word")
    with pytest.raises(ValueError, match="norm of backbone"):
        Config(norm="max")
