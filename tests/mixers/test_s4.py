import math

import pytest
import torch
from torch.nn.functional import gelu

from runnel.ops.hippo import bilinear, transition

from .support import close, mixer, normal, run


@pytest.mark.parametrize("measure", ["legs", "fout"])
@pytest.mark.parametrize("length", [40, 63])
def test_the_cauchy_kernel_equals_matrix_powers(measure, length):
    made = mixer("s4", d_state=12, measure=measure)
    a, b, c = made.system()
    naive, column = [], b[..., None]
    for _ in range(length):
        naive.append((c[:, None] @ column)[:, 0, 0])
        column = a @ column
    close(made.kernel(length), torch.stack(naive))


def test_equals_the_convolution_with_its_kernel():
    made = mixer("s4", d_state=8)
    x = normal(2, 300, 8)
    spectrum = torch.fft.rfft(made.kernel(300), 600, dim=0) * torch.fft.rfft(x, 600, dim=1)
    y = torch.fft.irfft(spectrum, 600, dim=1)[:, :300] + made.skip * x
    close(run(made, x), made.out(gelu(y)))


@pytest.mark.parametrize(("measure", "size"), [("legs", 16), ("fout", 15)])
def test_it_begins_as_hippo(measure, size):
    """The same response to an impulse as the dense real HiPPO matrix, read by the same functional of the past."""
    made = mixer("s4", d_model=1, d_state=16, measure=measure, dt_min=0.01, dt_max=0.01)
    with torch.no_grad():
        made.c.copy_(made.b)  # C = B*: invariant under changes of basis
        made.c[..., 1].neg_()
        if measure == "fout":
            made.log_decay.fill_(-60.0)
    a, b = transition(measure, size)
    step, gain = bilinear(a, b, torch.tensor(0.01, dtype=torch.float64))
    dense, h = [], gain
    for _ in range(200):
        dense.append(b @ h)
        h = step @ h
    close(made.kernel(200)[:, 0], torch.stack(dense), bound=1e-4)  # parameters are made in float32


def test_the_step_size_sets_the_length_of_the_memory():
    """The impulse response of legs has faded to about 1/e^k of its size after k / dt tokens, whatever dt."""
    for dt in (0.1, 0.01):
        made = mixer("s4", d_model=1, d_state=16, dt_min=dt, dt_max=dt)
        size = made.kernel(math.ceil(8 / dt))[:, 0].abs()
        early, late = size[: round(1 / dt)].max(), size[round(7 / dt) :].max()
        assert late < 0.05 * early


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="even d_state >= 2; got 3"):
        mixer("s4", d_state=3)
    with pytest.raises(ValueError, match="measures legs and fout; got 'legt'"):
        mixer("s4", measure="legt")
    with pytest.raises(ValueError, match="0 < dt_min <= dt_max"):
        mixer("s4", dt_min=1.0)
