import torch
from forecasters.support import a_window

from runnel.forecasters.last_value import reference
from runnel.windows import WindowShape, build


def test_equals_the_rule():
    shape = WindowShape(5, 4, channels=2)
    window = a_window(shape)
    forecast = build("last_value", shape).point(window)
    for row in range(3):
        for channel in range(2):
            expected = reference(window.history[row, :, channel].tolist(), 4)
            assert torch.equal(forecast[row, :, channel], torch.tensor(expected, dtype=torch.float64))
