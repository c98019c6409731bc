"""Write docs/methods.md, every method with its papers, forms and oracle: `python tools/methods.py`.

The oracles are lines of docs/oracles.json, which `tools/oracles.py` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import runnel
from runnel.storage import read_json

DOCS = Path(__file__).parents[1] / "docs"
BEGINNING = """# Methods

Every method that there is, by kind; written by `tools/methods.py` from what the folders hold. Forms: what a mixer can
do (*parallel* over a sequence, one *step*, *packed* rows, draft *trees*; *prefix* where a prompt is read in both
directions). Oracle: an implementation from elsewhere that was run beside ours with the same weights in float64, and the
largest difference of the outputs (`tools/oracles.py`). Every page is also held to the literal loop that stands in it.
"""


def page(methods: Sequence[dict[str, Any]], oracles: Sequence[dict[str, Any]]) -> str:
    known = {(line["kind"], line["name"]): line for line in oracles}
    kinds = list(dict.fromkeys(method["kind"] for method in methods))
    parts = [BEGINNING]
    for kind in kinds:
        of_kind = [method for method in methods if method["kind"] == kind]
        parts.append(f"\n## {kind[0].upper()}{kind[1:]} ({len(of_kind)})\n\n{_table(of_kind, known)}\n")
    return "".join(parts)


def _table(methods: Sequence[dict[str, Any]], oracles: dict[tuple[str, str], dict[str, Any]]) -> str:
    """With a column of forms and one of oracles where any method of the kind has them."""
    forms = any(method["forms"] for method in methods)
    checked = any((method["kind"], method["name"]) in oracles for method in methods)
    head = ["method", "what it is", "papers", *["forms"] * forms, *["oracle"] * checked]
    lines = [head, ["---"] * len(head)]
    for method in methods:
        path = "../src/" + method["module"].replace(".", "/") + ".py"
        papers = "; ".join(map(_paper, method["titles"], method["arxiv"]))
        line = [f"[`{method['name']}`]({path})", method["summary"].replace("|", "\\|").rstrip(".:"), papers]
        line += [", ".join(method["forms"])] * forms
        line += [_oracle(oracles.get((method["kind"], method["name"])))] * checked
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _paper(title: str, arxiv: str) -> str:
    return f"[{title}](https://arxiv.org/abs/{arxiv})" if arxiv else title


def _oracle(line: dict[str, Any] | None) -> str:
    return "" if line is None else f"{line['oracle']}: {line['difference']:.0e}"


if __name__ == "__main__":
    text = page(runnel.methods(), read_json(DOCS / "oracles.json"))
    (DOCS / "methods.md").write_text(text, encoding="utf-8")
