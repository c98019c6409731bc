"""Write docs/compat.md from what the tests of the families measure: `python tools/compat.py` (some minutes)."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import runnel
from runnel import native
from runnel.interop import gguf

ROOT = Path(__file__).parents[1]
TESTS, SCRIPTS = ROOT / "tests" / "interop" / "families", ROOT / "docs" / "compat"
HEADER = "| family | settings | import | export | error, float32 | error, float64 | drafters | native | GGUF |"
INTRODUCTION = """# Checkpoints of other libraries

Written by `python tools/compat.py`; every line is measured on small random models of transformers {version}, and those
of flash-linear-attention's layout (gla, delta_net, gated_deltanet, rwkv7), whose library needs a GPU, beside its
function written down in the tests.

- **import**: the folder is read, and the logits of a text are within 2e-5 of transformers', relative to the largest.
- **export**: written back, names, dtypes and bytes are the same, in float32 and in bfloat16, and transformers reads it.
- **error**: the largest difference of logits. Most families of transformers compute norms in float32 whatever the
  weights are: float64 says something where it is far below 1e-7.
- **drafters**: with how many of them greedy decoding writes what the literal loop writes, ragged rows together, in
  float64, by lossless rules of acceptance in turn. `make test-all` has every drafter by every rule.
- **native**: every layer runs in the native engine; else what runs in PyTorch, and why.
- **GGUF**: `runnel.interop.gguf` writes it.

Decoding is the same for every family: what holds for a pattern holds for a checkpoint that has become one.

Files are mapped: what the model has as the file has it is not copied, and comes from disk when it is used. Queries,
keys and values, which lie apart in a file and are one tensor here, are mapped one after the other (on Linux); copied
are only the pages where they meet, and a part that begins elsewhere in its page than it would in the whole, after a
bias, say. Whole copies are made of what is in another order: GPT-2's transposed matrices, Qwen3-Next's interleaved
heads. A folder that is being read must stay as it is. How long reading takes and how much memory, beside safetensors'
own reader, is in [results/checkpoint.md](results/checkpoint.md).
"""
WRONG = """## Where transformers {version} differs from itself

Each is a script in `docs/compat`: the error against the same model reading the text at once, and Runnel's.
"""


def main() -> None:
    import transformers

    sys.path.insert(0, str(ROOT))
    rows = [row(family, case) for family in families() for case in family.CASES]
    parts = [INTRODUCTION.format(version=transformers.__version__), HEADER + "\n" + "|---" * 9 + "|", *rows]
    text = "\n".join(parts) + "\n\n" + WRONG.format(version=transformers.__version__) + "\n"
    text += "\n".join(script(path) for path in sorted(SCRIPTS.glob("[a-z]*.py")))
    (ROOT / "docs" / "compat.md").write_text(text, encoding="utf-8")


def families() -> list[Any]:
    """The test classes of all families."""
    names = [f"tests.interop.families.{path.stem}" for path in sorted(TESTS.glob("test_*.py"))]
    modules = [importlib.import_module(name) for name in names]
    found = [(m, c) for m in modules for _, c in inspect.getmembers(m, inspect.isclass) if hasattr(c, "CASES")]
    return [c for m, c in found if c.__module__ == m.__name__]


def row(family: Any, case: str) -> str:
    page = Path(inspect.getfile(family)).stem.removeprefix("test_")
    single, double = family.parity(case), family.parity(case, torch.float64)
    first = case == next(iter(family.CASES))
    cells = [
        f"[`{page}`](../src/runnel/interop/families/{page}.py)",
        case,
        "yes" if single < 2e-5 else "no",
        "yes" if holds(lambda folder: family().test_round_trip(case, folder)) else "no",
        f"{single:.0e}",
        f"{double:.0e}",
        str(len(family.exact_drafters(case))) if first else "",
        packed(family.pair(case).ours),
        "yes" if holds(lambda folder: written(family.pair(case), folder)) else "",
    ]
    print(" | ".join(cells), flush=True)
    return "| " + " | ".join(cells) + " |"


def packed(model: runnel.Model) -> str:
    if not native.available():
        return "not built"
    fallbacks = runnel.pack(model, weights="f32").fallbacks
    return "yes" if not fallbacks else "; ".join(sorted(set(fallbacks.values())))


def written(pair: Any, folder: Path) -> None:
    gguf.write(pair.ours, folder / "model.gguf", like=pair.folder)


def holds(check: Any) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder))
        except (AssertionError, KeyError, ValueError):
            return False
    return True


def script(path: Path) -> str:
    """A script's purpose and what it prints."""
    ran = subprocess.run([sys.executable, path.name], cwd=path.parent, capture_output=True, text=True, check=True)
    purpose = (inspect.cleandoc(path.read_text(encoding="utf-8").split('"""')[1])).replace("\n", " ")
    return f"[`{path.name}`](compat/{path.name}): {purpose}\n\n```\n{ran.stdout}```\n"


if __name__ == "__main__":
    main()
