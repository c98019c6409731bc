"""`runnel methods`: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runnel.cli import _screen


def command(
    kind: Annotated[
        str | None, typer.Option(help="Only methods of this kind, such as mixer, drafter or source.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table of the README.")] = False,
) -> None:
    """List every method that there is, with its papers.

    \b
    Example:
        runnel methods --kind mixer
    """
    from runnel import catalog

    if kind is not None and kind not in catalog.KINDS.values():
        raise ValueError(f"no kind of method is called {kind!r}{catalog.suggest(kind, tuple(catalog.KINDS.values()))}")
    found = [method for method in catalog.methods() if kind in (None, method["kind"])]
    if json:
        _screen.print_json(found)
    elif markdown:
        print(table(found))
    else:
        print("\n".join(_screen.columns([(m["kind"], m["name"], shortened(m["summary"])) for m in found])))


def table(found: list[dict[str, Any]]) -> str:
    """Methods as a Markdown table: kind, name with a link to its page, papers."""
    lines = ["| kind | method | papers |", "|---|---|---|"]
    for method in found:
        path = "src/" + method["module"].replace(".", "/") + ".py"
        papers = "; ".join(_paper(*paper) for paper in zip(method["titles"], method["arxiv"], strict=True))
        lines.append(f"| {method['kind']} | [`{method['name']}`]({path}) | {papers} |")
    return "\n".join(lines)


def shortened(summary: str, width: int = 100) -> str:
    """The first line of a page's docstring, cut at a word."""
    return summary if len(summary) <= width else summary[:width].rsplit(" ", 1)[0] + " ..."


def _paper(title: str, arxiv: str) -> str:
    return f"[{title}](https://arxiv.org/abs/{arxiv})" if arxiv else title
