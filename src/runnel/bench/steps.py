"""How long a training step takes: our mixers and attention, and mambapy and transformers where they are installed.

    python benchmarks/train.py --lengths 512,2048 --threads 2 --json results/train.json
    python benchmarks/train.py --quick                              # 64 tokens, two rounds: does it run?

Forward, loss and backward of four layers of width 256 over a vocabulary of 256, batch 1, random weights, all in one
process, with transformers and mambapy where they are installed. A ratio is the median over the rounds of ratios to our
attention's step of the same round. `--without` runs ours once more with the extension left out; `--memory`
measures the peak resident memory of one step, each in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import runnel
from runnel import native
from runnel.bench.side_by_side import Seconds, Way, circumstances, in_turn, limits, ratio, show

VOCAB, WIDTH, LAYERS = 256, 256, 4
BASE = "attention"
OURS = (BASE, "mamba", "mamba2", "gla", "gated_deltanet", "mingru")
LEFT_OUT = " (PyTorch)"
QUICK = 64
Step = Callable[[], None]


def ours(name: str, length: int) -> Step:
    """A step of our model; a name that ends in LEFT_OUT runs without the extension."""
    backend: Callable[[], AbstractContextManager[None]] = native.left_out if name.endswith(LEFT_OUT) else nullcontext
    model = runnel.build(name.removesuffix(LEFT_OUT), vocab_size=VOCAB, d_model=WIDTH, n_layers=LAYERS, seed=0)
    forward = step_of(model, lambda tokens: model(tokens)[0], length)

    def step() -> None:
        with backend():
            forward()

    return step


def mambapy(length: int) -> Step:
    from mambapy.mamba import Mamba, MambaConfig

    embed, norm = nn.Embedding(VOCAB, WIDTH), nn.RMSNorm(WIDTH)
    model = nn.Sequential(embed, Mamba(MambaConfig(d_model=WIDTH, n_layers=LAYERS)), norm)
    return step_of(model, lambda tokens: model(tokens) @ embed.weight.mT, length)


def transformers(kind: str, length: int) -> Step:
    import transformers as peer

    sizes: dict[str, Any] = {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS}
    config = {
        "llama": lambda: peer.LlamaConfig(**sizes, intermediate_size=672, num_attention_heads=4),
        "mamba": lambda: peer.MambaConfig(**sizes, state_size=16),
        "mamba2": lambda: peer.Mamba2Config(**sizes, num_heads=8, head_dim=64, state_size=64, n_groups=1),
    }[kind]()
    model = peer.AutoModelForCausalLM.from_config(config)
    return step_of(model, lambda tokens: model(tokens).logits, length)


PEERS: dict[str, Callable[[int], Step]] = {
    "mambapy": mambapy,
    "transformers llama": lambda length: transformers("llama", length),
    "transformers mamba2": lambda length: transformers("mamba2", length),
    "transformers mamba": lambda length: transformers("mamba", length),
}


def step_of(model: nn.Module, logits_of: Callable[[Tensor], Tensor], length: int) -> Step:
    tokens = torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        logits = logits_of(tokens)
        cross_entropy(logits[0, :-1], tokens[0, 1:]).backward()

    return step


def steps_of(length: int, names: list[str], peers: list[str]) -> dict[str, Step]:
    steps = {name: ours(name, length) for name in names}
    for name in peers:
        try:
            steps[name] = PEERS[name](length)
        except ImportError:
            print(f"{name}: not installed", file=sys.stderr)
    return steps


def way_of(step: Step, clock: Callable[[], float]) -> Way:
    def once() -> float:
        begun = clock()
        step()
        return clock() - begun

    return once


def table(seconds: Seconds, length: int) -> dict[str, Any]:
    """Tokens a second, the time relative to attention's and mamba's."""
    names = [name for name in seconds if not name.startswith(("read", "multiply"))]
    return {
        name: {
            "tokens_per_second": round(length / median(seconds[name]), 0),
            **{f"time_to_{base}": round(ratio(seconds, name, base), 3) for base in (BASE, "mamba") if base in names},
        }
        for name in names
    }


def peak_memory(name: str, length: int) -> int:
    """Bytes that a step of this length adds to the peak of a short one, in this process."""
    ours(name, 16)()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(name, length)()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def peaks(names: list[str], length: int) -> dict[str, int]:
    command = [sys.executable, "-m", "runnel.bench.steps", "--lengths", str(length), "--one-peak"]
    return {name: int(subprocess.check_output([*command, name])) for name in names}


def measure(
    lengths: Sequence[int],
    names: Sequence[str] = OURS,
    peers: Sequence[str] = tuple(PEERS),
    repeats: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """A report on the steps of our mixers and of what peers are installed."""
    report: dict[str, Any] = {"what": "train", "quick": max(lengths) <= QUICK, **circumstances()}
    report["clock"], report["lengths"] = "processor" if clock is time.process_time else "wall", {}
    for length in lengths:
        steps = steps_of(length, list(names), list(peers))
        ways = {name: way_of(step, clock) for name, step in steps.items()}
        seconds = in_turn({**limits(), **ways}, repeats)
        report["lengths"][str(length)] = {"steps": table(seconds, length), "seconds": seconds}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="512,2048")
    parser.add_argument("--mixers", default=",".join(OURS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, for a machine that others use too"
    )
    parser.add_argument("--without", action="store_true", help="ours once more, without the extension")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} tokens, two rounds")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--one-peak", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    lengths = [QUICK] if given.quick else [int(length) for length in given.lengths.split(",")]
    names = [name for name in given.mixers.split(",") if name]
    if given.one_peak:
        print(peak_memory(given.one_peak, lengths[0]))
        return
    if given.memory:
        report = {"what": "memory", "quick": given.quick, **circumstances()}
        report["peak_bytes"] = {str(length): peaks(names, length) for length in lengths}
        show(report, given.json)
        return
    if given.without:
        names += [name + LEFT_OUT for name in names if name != BASE]
    clock = time.process_time if given.cpu_time else time.perf_counter
    others = [name for name in given.peers.split(",") if name]
    show(measure(lengths, names, others, 2 if given.quick else given.repeats, clock), given.json)


if __name__ == "__main__":
    main()
