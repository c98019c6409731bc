"""`runnel doctor`: what this machine offers, and what to do where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from runnel.cli import _screen

PACKAGES = ("runnel", "torch", "numpy", "safetensors", "tokenizers", "typer", "rich", "matplotlib", "tensorboard")
OPTIONAL = {"tensorboard": "only for `runnel train --tensorboard`: pip install tensorboard"}
INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")
LITTLE_MEMORY, LITTLE_DISK = 2e9, 1e9


def command(
    bandwidth: Annotated[bool, typer.Option("--bandwidth", help="Measure how fast memory is read (a second).")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine offers, and what to do where something is missing.

    \b
    Example:
        runnel doctor
    """
    facts = gather(bandwidth)
    advice = advise(facts)
    if json:
        _screen.print_json({**facts, "advice": advice})
        return
    print("\n".join(_screen.columns([(name.replace("_", " "), shown(name, value)) for name, value in facts.items()])))
    print("\n".join(f"- {line}" for line in advice) if advice else "nothing is missing")


def gather(bandwidth: bool) -> dict[str, Any]:
    """JSON-able facts; sizes in bytes, None for what is not there or cannot be found out."""
    import torch

    from runnel import native

    facts: dict[str, Any] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "cpu": _cpu_line("model name") or platform.processor() or platform.machine(),
        "instruction_sets": _instruction_sets(),
        "torch_kernels": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "compiler": _compiler(),
        "native": native.instruction_sets(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free_memory_bytes": _free_memory(),
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
    }
    return {**facts, "read_bytes_per_second": measure_bandwidth()} if bandwidth else facts


def advise(facts: dict[str, Any]) -> list[str]:
    """What to do, a line for each thing that is missing."""
    advice = [f"{name} is not installed; {why}" for name, why in OPTIONAL.items() if facts[name] is None]
    if not facts["native"]:
        advice.append("the native kernels were not built, so runnel.pack is missing: reinstall with a C++ compiler")
    if facts["threads"] > facts["cores"]:
        advice.append(
            f"{facts['threads']} threads on {facts['cores']} cores are slow: set OMP_NUM_THREADS or --threads"
        )
    if facts["free_memory_bytes"] is not None and facts["free_memory_bytes"] < LITTLE_MEMORY:
        advice.append(
            f"little free memory: {_screen.size(facts['free_memory_bytes'])}; lower --batch, --length, --d-model"
        )
    if facts["free_disk_bytes"] < LITTLE_DISK:
        advice.append(
            f"little free disk: {_screen.size(facts['free_disk_bytes'])}; give --out on a disk with more room"
        )
    return advice


def shown(name: str, value: Any) -> str:
    """A fact for people."""
    if value is None:
        return "none"
    if name == "read_bytes_per_second":
        return f"{_screen.size(value)}/s"
    if name.endswith("_bytes"):
        return _screen.size(value)
    return " ".join(value) if isinstance(value, list) else str(value)


def measure_bandwidth(n_bytes: int = 1 << 28) -> float:
    """Bytes of memory read per second by summing a vector much larger than the caches; the best of five."""
    import torch

    values, best = torch.ones(n_bytes // 4), float("inf")
    for _ in range(5):
        started = time.perf_counter()
        values.sum()
        best = min(best, time.perf_counter() - started)
    return n_bytes / best


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int:
    """Cores that this process may use; a container may have fewer than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _instruction_sets() -> list[str]:
    flags = (_cpu_line("flags") or _cpu_line("Features") or "").split()
    return [name for name in INSTRUCTIONS if name in flags]


def _cpu_line(key: str) -> str | None:
    return _proc_value(Path("/proc/cpuinfo"), key)


def _free_memory() -> int | None:
    line = _proc_value(Path("/proc/meminfo"), "MemAvailable")
    return int(line.split()[0]) * 1024 if line else None


def _proc_value(path: Path, key: str) -> str | None:
    """The first `key: value` of a file of Linux; None elsewhere."""
    if not path.is_file():
        return None
    pairs = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)


def _compiler() -> str | None:
    found = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if found is None:
        return None
    output = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0] if output else found
