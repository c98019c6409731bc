"""Where the time of a native call goes: every operation of a packed model by itself, for one call of some tokens.

    python benchmarks/shares.py --shape mamba-130m --weights bf16 --tokens 1,8
    python benchmarks/shares.py --shape llama-135m --tokens 256 --layers 6

Shares are those of the time within the calls of the engine; `outside` is what Python adds to it.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace
from statistics import quantiles

import torch

import runnel
from runnel.bench import peers
from runnel.packing.builder import KINDS, MAPS
from runnel.packing.segment import Segment

WITH_BODY = ("loop", "channels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=peers.SHAPES, default="mamba-130m")
    parser.add_argument("--weights", default="bf16")
    parser.add_argument("--tokens", default="1,8", help="tokens of a call")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--context", type=int, default=peers.CONTEXT, help="tokens before")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape = peers.SHAPES[given.shape]
    if given.layers:
        shape = replace(shape, ours={**shape.ours, "n_layers": given.layers})
    packed = runnel.pack(runnel.build(**shape.ours), given.weights)
    segments = [part for part in (*packed.parts, packed.head) if isinstance(part, Segment)]
    for tokens in map(int, given.tokens.split(",")):
        print("\n".join(lines(packed, segments, tokens, given.context, given.repeats)))


def lines(packed: runnel.PackedModel, segments: list[Segment], tokens: int, context: int, repeats: int) -> list[str]:
    """A table of one call of so many tokens: of every operation the time that a quarter of the calls stays below."""
    text = peers.text_of(tokens, packed.config.outcomes)
    state = packed(peers.text_of(context, packed.config.outcomes))[1]
    calls, wholes = [], []
    for _ in range(repeats + 3):
        for segment in segments:
            segment.seconds = torch.zeros(len(segment.spec.operations), dtype=torch.float64)
        begun = time.perf_counter()
        packed(text, state)
        wholes.append(time.perf_counter() - begun)
        calls.append(torch.cat([segment.seconds for segment in segments if segment.seconds is not None]))
    for segment in segments:
        segment.seconds = None
    spent: Counter[str] = Counter()
    usual = torch.stack(calls[3:]).quantile(0.25, dim=0).tolist()
    for name, seconds in zip([name for segment in segments for name in _names(segment)], usual, strict=True):
        spent[name] += seconds
    inside, whole = sum(spent.values()), quantiles(wholes[3:], n=4)[0]
    table = [f"{tokens} tokens: {1e3 * whole:.2f} ms, {1e3 * (whole - inside):.2f} of them outside the engine"]
    return [
        *table,
        *(f"{share / inside:6.1%} {1e6 * share:9.0f} us  {name}" for name, share in spent.most_common() if share),
    ]


def _names(segment: Segment) -> list[str]:
    """What is timed together has the name of its first operation and of what is in it."""
    names = []
    operations = segment.spec.operations
    for at, (kind, _, _, ints, _, _) in enumerate(operations):
        name = KINDS[kind]
        if name == "product":
            _, outputs, inputs = segment.spec.matrices[ints[0]]
            name = f"product {inputs} -> {outputs}"
        elif name in WITH_BODY:
            body = operations[at + 1 : at + 1 + ints[0]]
            name = f"{name}: {' '.join(MAPS[c] if KINDS[k] == 'map' else KINDS[k] for k, c, *_ in body)}"
        elif name in ("map", "reduce", "normalise", "small_product"):
            name = "numbers of a node"
        names.append(name)
    return names


if __name__ == "__main__":
    main()
