"""Decoding, verifying and prefill of packed models beside transformers and llama.cpp, where they are installed.

    python benchmarks/decode.py --shape mamba-130m --json results/mamba-130m.json
    python benchmarks/decode.py --shape llama-135m --weights bf16 --what decode,verify
    python benchmarks/decode.py --shape mamba-130m --quick          # two layers, two rounds: does it run?

Batch 1, random weights, the same for all. Everything is timed in turn in one process, and the machine's read bandwidth
and arithmetic with it, so that ratios and shares hold also where the machine is shared.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

import runnel
from runnel.bench import peers
from runnel.bench.side_by_side import (
    READ_BYTES,
    SQUARE,
    Seconds,
    Way,
    circumstances,
    in_turn,
    installed,
    limits,
    ratio,
    share_of_multiplying,
    share_of_reading,
    show,
    timed,
)
from runnel.packing.segment import Segment

SIZES = (2, 4, 8, 16)
PREFILLS = (512, 2048)
STEPS, TIMES = 16, 4
KINDS: dict[str, tuple[str, ...]] = {"f32": ("f32",), "bf16": ("f16", "bf16"), "int8": ("q8_0",), "int4": ()}
"""Our kinds of weights and llama.cpp's that they are compared with."""
WHAT = ("decode", "verify", "prefill")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=peers.SHAPES, default="mamba-130m")
    parser.add_argument("--weights", default="f32,bf16,int8")
    parser.add_argument("--what", default=",".join(WHAT))
    parser.add_argument("--prefills", default=",".join(map(str, PREFILLS)), help="lengths of prompts")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--alone", action="store_true", help="without peers")
    parser.add_argument("--quick", action="store_true", help="a small model, two rounds")
    parser.add_argument("--json", type=Path, help="keep the report here")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    prefills = [int(length) for length in given.prefills.split(",")]
    weights, what = given.weights.split(","), given.what.split(",")
    show(measure(given.shape, weights, what, given.repeats, given.alone, given.quick, prefills), given.json)


def measure(
    name: str,
    weights: list[str],
    what: list[str],
    repeats: int = 7,
    alone: bool = False,
    quick: bool = False,
    prefills: Sequence[int] = PREFILLS,
) -> dict[str, Any]:
    """A report on a shape of `peers.SHAPES`. what: of WHAT; alone: without peers; quick: a small model, two rounds."""
    shape = peers.SHAPES[name].quick() if quick else peers.SHAPES[name]
    lengths = [64] if quick else list(prefills)
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        peer = None if alone else peers.peer_of(shape)
        model = peers.ours(shape, peer, Path(folder) / "folder")
        packed = {kind: runnel.pack(model, kind) for kind in weights}
        ways = limits()
        for kind, engine in packed.items():
            ways |= _ours(f"runnel {kind}", engine, what, lengths)
        agreement = {}
        if peer is not None:
            agreement = {"transformers": _difference(packed[weights[0]], _logits(peer))}
            for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
                if kind in weights:
                    ways |= _theirs(f"transformers {kind}", _in(peer, dtype), what, lengths)
            if installed("llama_cpp") and installed("gguf"):
                for kind in [kind for own in weights for kind in KINDS[own]]:
                    file = peers.write_gguf(shape, peer, kind, Path(folder) / f"{kind}.gguf")
                    llama = peers.LlamaCpp(file, threads)
                    agreement[f"llama.cpp {kind}"] = _difference(packed[weights[0]], _logits(llama))
                    ways |= _llama_cpp(f"llama.cpp {kind}", llama, what, lengths)
        seconds = in_turn(ways, 2 if quick else repeats)
    report: dict[str, Any] = {"what": "decode", "shape": name, "quick": quick, **circumstances()}
    report["machine"] = _machine(seconds)
    report["difference_of_logits"] = agreement
    report["runnel"] = [_summary(kind, packed[kind], seconds, what, lengths) for kind in weights]
    report["peers"] = {n: _rates(n, seconds, lengths) for n in _engines(seconds) if not n.startswith("runnel")}
    report["seconds"] = seconds
    return report


def _ours(name: str, packed: runnel.PackedModel, what: list[str], prefills: list[int]) -> dict[str, Way]:
    vocab_size = packed.config.outcomes
    token = torch.zeros(1, 1, dtype=torch.long)
    state = packed(peers.text_of(peers.CONTEXT, vocab_size))[1]
    ways: dict[str, Way] = {}

    def decode() -> None:
        at = state
        for _ in range(STEPS):
            at = packed(token, at)[1]

    def verify(size: int) -> None:
        tree = runnel.DraftTree([0] * size, list(range(-1, size - 1)), [0] * size)
        state.commit(packed.verify(state, tree).pending, [list(range(size))])

    ways[f"{name} decode"] = lambda: timed(decode)() / STEPS
    if "verify" in what:
        for size in SIZES:
            ways[f"{name} verify {size}"] = timed(partial(verify, size), TIMES)
    if "prefill" in what:
        for length in prefills:
            text = peers.text_of(length, vocab_size)
            ways[f"{name} prefill {length}"] = timed(partial(packed.features, text))
    return ways


def _theirs(name: str, peer: Any, what: list[str], prefills: list[int]) -> dict[str, Way]:
    ways = {f"{name} decode": peers.writes(peer, STEPS)}
    if "prefill" in what:
        ways |= {f"{name} prefill {length}": peers.reads(peer, length) for length in prefills}
    return ways


def _llama_cpp(name: str, engine: peers.LlamaCpp, what: list[str], prefills: list[int]) -> dict[str, Way]:
    ways = {f"{name} decode": engine.decodes(STEPS)}
    if "verify" in what:
        ways |= {f"{name} verify {size}": engine.verifies(size, TIMES) for size in SIZES}
    if "prefill" in what:
        ways |= {f"{name} prefill {length}": engine.reads(length) for length in prefills}
    return ways


def _in(peer: Any, dtype: torch.dtype) -> Any:
    """A copy of a model of transformers in another dtype."""
    twin = type(peer)(peer.config).eval().to(dtype)
    twin.load_state_dict(peer.state_dict())
    return twin


# ---- do they compute the same? --------------------------------------------------------------------------------------


@torch.no_grad()
def _logits(engine: Any) -> torch.Tensor:
    """After the context, (V,)."""
    if isinstance(engine, peers.LlamaCpp):
        engine.lib.llama_memory_clear(engine.memory, True)
        return torch.tensor(engine.read(peers.text_of(peers.CONTEXT, engine.vocab_size)[0].tolist(), 0))
    return engine(peers.text_of(peers.CONTEXT, engine.config.vocab_size)).logits[0, -1].float()


def _difference(packed: runnel.PackedModel, logits: torch.Tensor) -> float:
    """Of the last logits, relative to the largest."""
    own = packed(peers.text_of(peers.CONTEXT, packed.config.outcomes))[0][0, -1]
    return float((own - logits).abs().max() / logits.abs().max())


# ---- what comes out -------------------------------------------------------------------------------------------------


def _engines(seconds: Seconds) -> list[str]:
    return [name.removesuffix(" decode") for name in seconds if name.endswith(" decode")]


def _machine(seconds: Seconds) -> dict[str, float]:
    return {
        "read_gigabytes_per_second": round(1e-9 * READ_BYTES / median(seconds["read"]), 1),
        **{
            f"{kind}_gigaflops": round(2e-9 * SQUARE**3 / median(seconds[f"multiply {kind}"]), 0)
            for kind in ("float32", "bfloat16")
        },
    }


def _rates(name: str, seconds: Seconds, prefills: list[int]) -> dict[str, Any]:
    """Tokens a second, and the cost of verifying in single steps."""
    rates: dict[str, Any] = {"decode": round(1 / median(seconds[f"{name} decode"]), 1)}
    sizes = [size for size in SIZES if f"{name} verify {size}" in seconds]
    if sizes:
        rates["verify"] = {size: round(ratio(seconds, f"{name} verify {size}", f"{name} decode"), 2) for size in sizes}
    for length in prefills:
        if f"{name} prefill {length}" in seconds:
            rates[f"prefill {length}"] = round(length / median(seconds[f"{name} prefill {length}"]), 0)
    return rates


def _summary(
    kind: str, packed: runnel.PackedModel, seconds: Seconds, what: list[str], prefills: list[int]
) -> dict[str, Any]:
    name = f"runnel {kind}"
    nbytes, numbers = _size(packed)
    summary: dict[str, Any] = {"weights": kind, "weight_bytes": nbytes, **_rates(name, seconds, prefills)}
    summary["share_of_read_bandwidth"] = round(share_of_reading(seconds, f"{name} decode", nbytes), 2)
    if "prefill" in what:
        arithmetic = "float32" if kind == "f32" else "bfloat16"
        summary["share_of_arithmetic"] = {
            length: round(share_of_multiplying(seconds, f"{name} prefill {length}", numbers * length, arithmetic), 2)
            for length in prefills
        }
    summary["times_faster_than"] = {
        f"{engine} {way}": round(ratio(seconds, f"{engine} {way}", f"{name} {way}"), 2)
        for engine in _engines(seconds)
        if not engine.startswith("runnel") and engine.split()[1] in (kind, *KINDS[kind])
        for way in ["decode", *(f"verify {size}" for size in SIZES), *(f"prefill {length}" for length in prefills)]
        if f"{engine} {way}" in seconds and f"{name} {way}" in seconds
    }
    return summary


def _size(packed: runnel.PackedModel) -> tuple[int, int]:
    """Bytes of all matrices, and the multiplications of a token without the head."""
    layers = [part for part in packed.parts if isinstance(part, Segment)]
    head = packed.head.matrices if isinstance(packed.head, Segment) else []
    matrices = [matrix for part in layers for matrix in part.matrices]
    nbytes = sum(matrix.data.numel() for matrix in [*matrices, *head])
    return nbytes, sum(matrix.outputs * matrix.inputs for matrix in matrices)


if __name__ == "__main__":
    main()
