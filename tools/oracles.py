"""Run methods beside implementations from elsewhere, and note the largest difference: `python tools/oracles.py`.

Same weights, float64, random inputs. Lines of docs/oracles.json that are not measured here are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runnel import catalog
from runnel.lineage import Lineage
from runnel.mixer import Mixer
from runnel.storage import read_json, write_json

ORACLES = Path(__file__).parents[1] / "docs" / "oracles.json"
WIDTH, ROWS, LENGTH = 32, 2, 200


def measured(name: str, oracle: Callable[[Any, Tensor], Tensor]) -> float:
    """The largest difference between a mixer's outputs and its oracle's."""
    torch.manual_seed(0)
    page = catalog.page("mixers", name)
    mixer = catalog.class_in(page, Mixer)(WIDTH, page.Config()).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        x = torch.randn(ROWS, LENGTH, WIDTH, dtype=torch.float64)
        y, _ = mixer(x, mixer.init_state(ROWS), Lineage.sequence(ROWS, LENGTH))
        return float((y - oracle(mixer, x)).abs().max())


def _cell(made: nn.RNNBase, mixer: Any, x: Tensor) -> Tensor:
    """A layer of torch.nn with the mixer's weights; only the GRU has a second bias, that of its candidate."""
    made = made.double()
    made.weight_ih_l0.copy_(mixer.input.weight)
    made.weight_hh_l0.copy_(mixer.recurrent)
    made.bias_ih_l0.copy_(mixer.input.bias)
    made.bias_hh_l0.zero_()
    if isinstance(made, nn.GRU):
        made.bias_hh_l0[-WIDTH:] = mixer.candidate_bias
    return mixer.out(made(x)[0])


def lstm(mixer: Any, x: Tensor) -> Tensor:
    return _cell(nn.LSTM(WIDTH, WIDTH, batch_first=True), mixer, x)


def gru(mixer: Any, x: Tensor) -> Tensor:
    return _cell(nn.GRU(WIDTH, WIDTH, batch_first=True), mixer, x)


def elman(mixer: Any, x: Tensor) -> Tensor:
    return _cell(nn.RNN(WIDTH, WIDTH, batch_first=True), mixer, x)


MEASURED: tuple[tuple[str, str, Callable[[Any, Tensor], Tensor]], ...] = (
    ("elman", "torch.nn.RNN", elman),
    ("gru", "torch.nn.GRU", gru),
    ("lstm", "torch.nn.LSTM", lstm),
)


def main() -> None:
    held = read_json(ORACLES) if ORACLES.exists() else []
    lines = {(line["kind"], line["name"]): line for line in held}
    for name, oracle, function in MEASURED:
        difference = measured(name, function)
        lines["mixer", name] = {"kind": "mixer", "name": name, "oracle": oracle, "difference": difference}
        print(f"{name}: {oracle}, {difference:.1e}")
    write_json(ORACLES, [lines[key] for key in sorted(lines)])


if __name__ == "__main__":
    main()
