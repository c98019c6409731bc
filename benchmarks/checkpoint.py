"""Reading a checkpoint: seconds and memory beside `safetensors.torch.load_file` on the same folder.

    python benchmarks/checkpoint.py --json results/checkpoint.json     a Llama of 2.2 GB in bfloat16; a minute
    python benchmarks/checkpoint.py --quick                            one of 40 MB

The files are in the page cache. Both libraries map them, so that a model is there before its numbers are: "load" ends
when it can be called, "load and touch" when every page of its weights has been looked at, as the first call does.
Memory is the most that a process of its own took, in sizes of the model (Linux only).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from runnel import interop
from runnel.bench.side_by_side import circumstances, in_turn, ratio, show, timed
from runnel.interop import folder as folders

LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632, "max_position_embeddings": 2048,
}  # fmt: skip
QUICK = {"vocab_size": 4000, "hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 1024}
PAGE = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a model of 40 MB")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)  # way and folder, in a process of its own
    given = parser.parse_args()
    if given.peak is not None:
        print(peak(given.peak[0], Path(given.peak[1])))
        return
    with tempfile.TemporaryDirectory() as name:
        show(measured(Path(name), {**LLAMA, **(QUICK if given.quick else {})}, given.repeats), given.json)


def measured(folder: Path, config: dict[str, Any], repeats: int) -> dict[str, Any]:
    folders.write(folder, config, random_tensors(config))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    ways = {name: timed(lambda name=name: weights(name, folder)) for name in WAYS}
    ways |= {f"{name} and touch": timed(lambda name=name: touch(weights(name, folder))) for name in WAYS}
    seconds = in_turn(ways, repeats)
    report = {"what": "checkpoint", **circumstances(), "bytes": size}
    report["seconds"] = {name: statistics.median(own) for name, own in seconds.items()}
    report["ratio"] = {kind: ratio(seconds, f"runnel{kind}", f"load_file{kind}") for kind in ("", " and touch")}
    if sys.platform == "linux":
        asked = [[sys.executable, __file__, "--peak", name, str(folder)] for name in WAYS]
        told = [subprocess.run(line, capture_output=True, text=True, check=True).stdout for line in asked]
        report["peak"] = {name: int(line) / size for name, line in zip(WAYS, told, strict=True)}
    return report


def random_tensors(config: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint, as its family names them."""
    family = interop.family_of(config)
    theirs = interop.complete(family, config)
    ours = dict(interop.shapes(family.model_config(theirs)).named_parameters())
    for entry in family.table(theirs):
        for name, shape in zip(entry.their_names, entry.required([ours[own] for own in entry.our_names]), strict=True):
            yield name, torch.randn(shape).bfloat16()


def by_load_file(folder: Path) -> list[Tensor]:
    return [tensor for file in sorted(folder.glob("*.safetensors")) for tensor in load_file(file).values()]


def by_runnel(folder: Path) -> list[Tensor]:
    return [parameter.detach() for parameter in interop.load(folder).parameters()]


WAYS = {"load_file": by_load_file, "runnel": by_runnel}


def weights(way: str, folder: Path) -> list[Tensor]:
    return WAYS[way](folder)


def touch(tensors: list[Tensor]) -> float:
    """Look at a number of every page."""
    return float(sum(tensor.view(-1)[:: PAGE // tensor.itemsize].sum() for tensor in tensors))


def peak(way: str, folder: Path) -> int:
    """The most bytes that reading and touching took; a small folder is read before, for modules are loaded too."""
    with tempfile.TemporaryDirectory() as name:
        config = {**json.loads((folder / "config.json").read_text()), **QUICK, "num_hidden_layers": 1}
        folders.write(Path(name), config, random_tensors(config))
        touch(weights(way, Path(name)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    touch(weights(way, folder))
    return status("VmHWM") - before


def status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
