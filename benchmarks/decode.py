"""Decoding, verifying and prefill of packed models: times in one process, in turn, medians of ratios.

    python benchmarks/decode.py --shape mamba --weights f32 bf16 int8
    python benchmarks/decode.py --shape llama --weights bf16 --peers

Shapes: mamba-130m and llama-135m with random weights, batch 1. The machine's read bandwidth is measured in the same
rounds, so the share of it holds also where the machine is shared. --peers: transformers, where it is installed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import runnel

SHAPES: dict[str, dict[str, Any]] = {
    "mamba": {"pattern": "mamba", "vocab_size": 50280, "d_model": 768, "n_layers": 24, "channel": None},
    "llama": {
        "pattern": "attention(kv_heads=3, head_dim=64, qk_norm=False)",
        "vocab_size": 49152,
        "d_model": 576,
        "n_layers": 30,
    },
}
SIZES = (2, 4, 8, 16)
CONTEXT, STEPS, PREFILL = 64, 8, 512
READ = 1 << 28


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="mamba")
    parser.add_argument("--weights", nargs="+", default=["f32", "bf16", "int8"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = runnel.build(**SHAPES[options.shape])
    calls: dict[str, Callable[[], Any]] = {"read": _reader()}
    nbytes = {}
    for weights in options.weights:
        packed = runnel.pack(model, weights)
        segments = [part for part in [*packed.parts, packed.head] if hasattr(part, "matrices")]
        nbytes[weights] = sum(matrix.data.numel() for part in segments for matrix in part.matrices)
        calls |= {f"{weights} {name}": call for name, call in _calls(packed).items()}
    if options.peers:
        calls |= _peers(options.shape)
    times = _in_turn(calls, options.repeats)
    report = [_report(weights, times, nbytes[weights]) for weights in options.weights]
    for name in times:
        if name.startswith("transformers"):
            report.append({"peer": name, "tokens_per_second": STEPS / statistics.median(times[name])})
    print(json.dumps(report, indent=2))


def _reader() -> Callable[[], Any]:
    values = torch.ones(READ // 4)
    return values.sum


def _calls(packed: runnel.PackedModel) -> dict[str, Callable[[], Any]]:
    token = torch.zeros(1, 1, dtype=torch.long)
    state = packed(torch.zeros(1, CONTEXT, dtype=torch.long))[1]
    text = torch.randint(0, packed.config.outcomes, (1, PREFILL), generator=torch.Generator().manual_seed(0))

    def decode() -> None:
        at = state
        for _ in range(STEPS):
            at = packed(token, at)[1]

    def verify(m: int) -> Callable[[], Any]:
        tree = runnel.DraftTree([0] * m, list(range(-1, m - 1)), [0] * m)
        return lambda: packed.verify(state, tree)

    return {
        "decode": decode,
        **{f"verify {m}": verify(m) for m in SIZES},
        "prefill": lambda: packed.features(text),
    }


def _peers(shape: str) -> dict[str, Callable[[], Any]]:
    """transformers' own decoding of the same shape, a prefill of CONTEXT tokens included, in float32 and bfloat16."""
    import transformers

    if shape == "mamba":
        config = transformers.MambaConfig(vocab_size=50280, hidden_size=768, num_hidden_layers=24)
    else:
        config = transformers.LlamaConfig(
            vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3,
        )  # fmt: skip

    def writes(dtype: torch.dtype) -> Callable[[], Any]:
        peer = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        prompt = torch.ones(1, CONTEXT, dtype=torch.long)
        return lambda: peer.generate(prompt, max_new_tokens=STEPS, min_new_tokens=STEPS, do_sample=False)

    return {f"transformers {dtype}": writes(dtype) for dtype in (torch.float32, torch.bfloat16)}


def _in_turn(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begun)
    return times


def _report(weights: str, times: dict[str, list[float]], nbytes: int) -> dict[str, Any]:
    """Medians; ratios are medians of the ratios of each round."""
    step = [t / STEPS for t in times[f"{weights} decode"]]
    share = [(nbytes / t) / (READ / r) for t, r in zip(step, times["read"], strict=True)]
    curve = {
        m: round(statistics.median(v / s for v, s in zip(times[f"{weights} verify {m}"], step, strict=True)), 2)
        for m in SIZES
    }
    return {
        "weights": weights,
        "tokens_per_second": round(1 / statistics.median(step), 1),
        "weight_bytes": nbytes,
        "share_of_read_bandwidth": round(statistics.median(share), 2),
        "verify": curve,
        "prefill_tokens_per_second": round(PREFILL / statistics.median(times[f"{weights} prefill"]), 0),
    }


if __name__ == "__main__":
    main()
