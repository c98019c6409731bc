import math

import pytest
import torch
from torch.nn.functional import gelu

from runnel.ops.hippo import transition

from .support import close, mixer, normal, run


def test_recurrent_and_convolutional_view_agree():
    made = mixer("lssl", d_state=6)
    x = normal(2, 200, 8)
    a, b = made.system()
    kernel, column = [], b[..., None]
    for _ in range(200):
        kernel.append((made.c[:, None] @ column)[:, 0, 0])
        column = a @ column
    spectrum = torch.fft.rfft(torch.stack(kernel), 400, dim=0) * torch.fft.rfft(x, 400, dim=1)
    y = torch.fft.irfft(spectrum, 400, dim=1)[:, :200] + made.skip * x
    close(run(made, x), made.out(gelu(y)))


def test_twice_as_many_samples_at_half_the_step_give_the_same_outputs():
    """Continuous time: an error that falls with the step, and the wrong rate as the control."""
    made = mixer("lssl", d_state=8, dt_min=0.01, dt_max=0.01)
    time = torch.arange(400, dtype=torch.float64)
    directions = normal(1, 1, 8)
    slow, fast = [directions * (2 * math.pi * t / 200).sin()[None, :, None] for t in (time + 0.5, time / 2 + 0.25)]
    with torch.no_grad():
        coarse, fine = run(made, slow)[:, :200], run(made.resampled(0.5), fast)[:, 1::2]
        wrong = run(made, fast)[:, 1::2]
    assert (coarse - fine).abs().max() < 0.02 * coarse.abs().max() < 0.5 * (coarse - wrong).abs().max()


def test_it_begins_as_hippo_legs():
    made = mixer("lssl", d_state=6)
    close(made._continuous()[3], transition("legs", 6)[0], bound=1e-5)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="d_state >= 2; got 1"):
        mixer("lssl", d_state=1)
    with pytest.raises(ValueError, match="1/2 <= alpha <= 1, where its steps are stable; got 0"):
        mixer("lssl", alpha=0)
    with pytest.raises(ValueError, match="0 < dt_min <= dt_max"):
        mixer("lssl", dt_min=1.0)
