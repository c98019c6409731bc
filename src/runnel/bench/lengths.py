"""What a token costs after many tokens: seconds and bytes of state against the length of the text, and a plot.

    python benchmarks/length.py --json results/length.json --plot results/length.png
    python benchmarks/length.py --mixers mamba,attention --lengths 1024,4096 --repeats 3

Every mixer that keeps a state of constant size is to stay flat; attention is drawn beside it. The text is read by the
packed model in chunks, which leaves the state that single tokens leave, to the bit; single tokens are timed from there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

import runnel
from runnel import catalog
from runnel.bench.side_by_side import Way, circumstances, in_turn, show, timed
from runnel.state import State

WIDTH, LAYERS, VOCAB = 64, 2, 64
LENGTHS = tuple(1024 * 4**i for i in range(5))
QUICK = (256, 1024)
GROWS = ("attention",)
"""Drawn beside, up to MOST_GROWN tokens: reading more takes time that grows with the square."""
MOST_GROWN = 16384
STEPS, CHUNK = 64, 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="by default every one whose state does not grow, and attention")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--weights", default="f32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="small models gain nothing by more")
    parser.add_argument("--quick", action="store_true", help="mamba and attention, 256 and 1024 tokens")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--plot", type=Path, help="draw it here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lengths = QUICK if given.quick else [int(length) for length in given.lengths.split(",")]
    names = ["mamba", *GROWS] if given.quick else (given.mixers.split(",") if given.mixers else [*flat(), *GROWS])
    report = measure(names, lengths, given.weights, given.repeats)
    show(report, given.json)
    if given.plot is not None:
        plot(report, given.plot)


def measure(names: Sequence[str], lengths: Sequence[int], weights: str = "f32", repeats: int = 7) -> dict[str, Any]:
    """A report on mixers after so many tokens."""
    report: dict[str, Any] = {"what": "length", **circumstances(), "weights": weights, "width": WIDTH, "layers": LAYERS}
    report["mixers"] = [_measure(name, list(lengths), weights, repeats) for name in names]
    return report


def flat() -> list[str]:
    """Mixers that run natively and whose state has one size whatever was read."""
    found = []
    for name in catalog.names("mixers"):
        packed = runnel.pack(_build(name), "f32")
        if packed.fallbacks:
            print(f"{name}: left out, it runs in PyTorch: {packed.fallbacks}", file=sys.stderr)
        elif packed(_text(8))[1].nbytes == packed(_text(16))[1].nbytes:
            found.append(name)
    return found


def _build(name: str) -> runnel.Model:
    return runnel.build(name, vocab_size=VOCAB, d_model=WIDTH, n_layers=LAYERS, seed=0)


def _text(length: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(0))


def _measure(name: str, lengths: list[int], weights: str, repeats: int) -> dict[str, Any]:
    packed = runnel.pack(_build(name), weights)
    token = torch.zeros(1, 1, dtype=torch.long)
    if name in GROWS:
        lengths = [length for length in lengths if length <= MOST_GROWN]
    states: dict[int, State] = {}
    state, read = packed.init_state(1), 0
    for length in sorted(lengths):
        for piece in _text(length)[:, read:].split(CHUNK, dim=1):
            state = packed.features(piece, state)[1]
        states[length], read = state, length

    def decode(state: State) -> Way:
        def steps() -> None:
            at = state
            for _ in range(STEPS):
                at = packed(token, at)[1]

        way = timed(steps)
        return lambda: way() / STEPS

    print(name, file=sys.stderr)
    seconds = in_turn({str(length): decode(state) for length, state in states.items()}, repeats)
    first = seconds[str(min(lengths))]
    return {
        "mixer": name,
        "seconds_per_token": {length: median(taken) for length, taken in seconds.items()},
        "ratio_to_shortest": {
            length: round(median(a / b for a, b in zip(taken, first, strict=True)), 3)
            for length, taken in seconds.items()
        },
        "state_bytes": {str(length): state.nbytes for length, state in states.items()},
    }


def plot(report: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, key, title in zip(
        axes, ("ratio_to_shortest", "state_bytes"), ("seconds a token / at the shortest", "bytes of state"), strict=True
    ):
        for found in report["mixers"]:
            grows = found["mixer"] in GROWS
            points = {int(length): value for length, value in found[key].items()}
            axis.plot(
                points.keys(), points.values(), color="tab:red" if grows else "tab:blue", alpha=1 if grows else 0.4
            )
            if grows:
                axis.annotate(found["mixer"], (max(points), points[max(points)]), color="tab:red")
        axis.set(xscale="log", xlabel="tokens read", title=title)
    axes[0].set(ylim=(0, 3))
    axes[1].set(yscale="log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
