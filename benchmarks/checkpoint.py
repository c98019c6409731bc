"""Reading a checkpoint: seconds and memory beside `safetensors.torch.load_file` on the same folder.

    python benchmarks/checkpoint.py --page docs/results/checkpoint.md     a Llama of 2.2 GB in bfloat16; a minute
    python benchmarks/checkpoint.py --quick                               one of 19 MB

Both libraries map the files, so that a model is there before its numbers are. Three spans are timed: "load" ends when
the model can be called; "load and read" when every byte of its weights has been read, the files being in the page
cache; "from disk and read" is the same with files that are not (Linux only). What "load" costs beyond mapping is
building the modules, a matter of the number of layers and not of bytes. Memory, of a process of its own and in sizes of
the model (Linux only): the most that it took, and how much of that is its own, not pages of files that the system takes
back as it likes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from runnel import interop
from runnel.bench.side_by_side import Seconds, Way, circumstances, in_turn, ratio, show, timed
from runnel.interop import folder as folders

LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "num_hidden_layers": 22,
    "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 5632, "max_position_embeddings": 2048,
}  # fmt: skip
QUICK = {"vocab_size": 4000, "hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a model of 19 MB")
    parser.add_argument("--json", type=Path, help="keep the report here")
    parser.add_argument("--page", type=Path, help="write it as a page of the documentation")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)  # way and folder, in a process of its own
    given = parser.parse_args()
    if given.memory is not None:
        print(json.dumps(memory(given.memory[0], Path(given.memory[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        report = measured(Path(name), {**LLAMA, **(QUICK if given.quick else {})}, given.repeats)
    show(report, given.json)
    if given.page is not None:
        given.page.write_text(page(report), encoding="utf-8")


def measured(folder: Path, config: dict[str, Any], repeats: int) -> dict[str, Any]:
    folders.write(folder, config, random_tensors(config))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    seconds: Seconds = {}
    for span in spans("runnel", folder):  # each on its own: how files came into memory decides how fast they are read
        ways = {f"{name}: {span}": spans(name, folder)[span] for name in WAYS}
        seconds |= in_turn(ways, repeats)
    report = {"what": "checkpoint", **circumstances(), "bytes": size}
    report["seconds"] = {name: statistics.median(own) for name, own in seconds.items()}
    report["ratio"] = {
        span: ratio(seconds, f"runnel: {span}", f"load_file: {span}") for span in spans("runnel", folder)
    }
    if sys.platform == "linux":
        asked = [[sys.executable, __file__, "--memory", name, str(folder)] for name in WAYS]
        told = [json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout) for line in asked]
        report["memory"] = {
            name: {kind: taken / size for kind, taken in own.items()} for name, own in zip(WAYS, told, strict=True)
        }
    return report


def page(report: dict[str, Any]) -> str:
    """Markdown."""
    lines = [["", *WAYS, "ratio"], ["---"] * (len(WAYS) + 2)]
    for span, times in report["ratio"].items():
        own = [f"{1000 * report['seconds'][f'{name}: {span}']:,.0f} ms" for name in WAYS]
        lines.append([span, *own, f"{times:.2f}"])
    for kind in ("peak", "own"):
        shares = [report["memory"][name][kind] for name in WAYS] if "memory" in report else []
        lines += [[f"memory, {kind}", *(f"{share:.3f}" for share in shares), ""]] if shares else []
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    explained = (__doc__ or "").split("\n\n", 2)[2]
    return f"""# Reading a checkpoint

Made by `python benchmarks/checkpoint.py --page docs/results/checkpoint.md`: a Llama of {report["bytes"] / 1e9:.1f} GB
in bfloat16 beside `safetensors.torch.load_file` on the same folder, {report["processor"]}, {report["threads"]} threads.
Medians; ratios are medians of those within a round.

{explained}
{table}
"""


def spans(name: str, folder: Path) -> dict[str, Way]:
    """What is timed of a way, by what it is called in the report."""
    made = {"load": timed(partial(WAYS[name], folder)), "load and read": timed(lambda: read(WAYS[name](folder)))}
    return made | ({"from disk and read": partial(from_disk, name, folder)} if sys.platform == "linux" else {})


def from_disk(name: str, folder: Path) -> float:
    for file in folder.glob("*.safetensors"):
        with file.open("rb+") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return timed(lambda: read(WAYS[name](folder)))()


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


def read(tensors: list[Tensor]) -> int:
    """Every byte, eight at a time."""
    return sum(int(tensor.view(-1).view(torch.int64).sum()) for tensor in tensors)


def memory(way: str, folder: Path) -> dict[str, int]:
    """Bytes that reading took; a small folder is read before, for modules are loaded too."""
    with tempfile.TemporaryDirectory() as name:
        config = {**json.loads((folder / "config.json").read_text()), **QUICK, "num_hidden_layers": 1}
        folders.write(Path(name), config, random_tensors(config))
        read(WAYS[way](Path(name)))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, own = status("VmRSS"), status("RssAnon")
    tensors = WAYS[way](folder)
    read(tensors)
    return {"peak": status("VmHWM") - before, "own": status("RssAnon") - own}


def status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
