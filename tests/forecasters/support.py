"""Windows for tests of forecasters."""

import torch

from runnel.windows import Window, WindowShape, one_series


def a_window(shape, rows=3, seed=0, dtype=torch.float64):
    """A batch of random windows with every covariate that the shape names."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*size):
        return torch.randn(*size, generator=generator, dtype=dtype)

    both = shape.history + shape.horizon
    return Window(
        noise(rows, shape.history, shape.channels),
        noise(rows, shape.horizon, shape.channels),
        noise(rows, shape.history, shape.past) if shape.past else None,
        noise(rows, both, shape.future) if shape.future else None,
        noise(rows, shape.static) if shape.static else None,
    )


def seasonal(rows=400, channels=2, season=12, noise=0.05, seed=0):
    """A table of sines with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * torch.pi * torch.arange(rows)[:, None] / season + torch.arange(channels)
    return one_series(angle.sin() + noise * torch.randn(rows, channels, generator=generator))


def autoregression(coefficients, rows=2000, seed=0):
    """A table of one AR(p) series with unit noise."""
    generator = torch.Generator().manual_seed(seed)
    values = [0.0] * len(coefficients)
    for noise in torch.randn(rows, generator=generator, dtype=torch.float64).tolist():
        values.append(noise + sum(c * values[-1 - lag] for lag, c in enumerate(coefficients)))
    return one_series(torch.tensor(values[len(coefficients) :])[:, None])


def parts(table, shape):
    """Windows to train on (three quarters of the rows) and to validate on."""
    rows = int(table.lengths[0])
    cut = rows * 3 // 4
    bounds = ((shape.history, cut), (cut, rows))
    return [table.windows(shape, torch.tensor([low]), torch.tensor([high])) for low, high in bounds]


def mean_error(model, windows):
    """The mean squared error over all windows."""
    window = windows.take(torch.arange(len(windows)))
    return float((model.point(window) - window.target).square().mean())


__all__ = ["Window", "WindowShape", "a_window", "autoregression", "mean_error", "parts", "seasonal"]
