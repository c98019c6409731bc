"""What there is: methods are found by looking at the folders. There is no registry to keep in step."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

Base = type | tuple[type, ...]
ROOT = Path(__file__).parent
KINDS = {
    "mixers": "mixer",
    "blocks": "block",
    "norms": "norm",
    "wirings": "wiring",
    "heads": "head",
    "conversions": "conversion",
    "objectives": "objective",
    "drafters": "drafter",
    "trees": "tree",
    "acceptance": "acceptance",
    "policies": "policy",
    "decoders": "decoder",
    "processors": "processor",
    "guidance": "guidance",
    "prompts": "prompt",
    "forecasters": "forecaster",
    "codecs": "codec",
    "layouts": "layout",
    "packings": "packing",
    "plans": "plan",
    "data": "source",
    "interop/families": "checkpoint",
}
"""Folders of methods and what a page in them is called."""


@cache
def names(folder: str) -> tuple[str, ...]:
    """The methods of a folder: its pages, sorted; files that begin with an underscore are not methods."""
    return tuple(sorted(path.stem for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")))


def page(folder: str, name: str) -> ModuleType:
    """The module of a method. ValueError that suggests the nearest name when there is none."""
    if name not in names(folder):
        raise ValueError(f"no {KINDS[folder]} is called {name!r}{suggest(name, names(folder))}")
    return importlib.import_module(f"runnel.{folder.replace('/', '.')}.{name}")


def page_name(thing: object) -> str:
    """The method that an object's class is the page of."""
    return type(thing).__module__.rsplit(".", 1)[-1]


def suggest(name: str, known: tuple[str, ...]) -> str:
    """The end of an error message: the nearest known names, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"


@cache
def class_in(module: ModuleType, base: Base) -> Any:
    """The one subclass of `base`, or of one of several bases, that a page defines."""
    found = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base) and member.__module__ == module.__name__
    ]
    public = [member for member in found if not member.__name__.startswith("_")]
    assert len(public) == 1, f"{module.__name__} must define one {base}; found {public}"
    return public[0]


def make(folder: str, base: Base, thing: Any) -> Any:
    """The method that is meant by a name (its default Config), a Config of a page, or an object of one's own."""
    if isinstance(thing, base):
        return thing
    config = default_config(folder, thing) if isinstance(thing, str) else thing
    return class_in(_page_of(folder, config), base)(config)


def default_config(folder: str, name: str) -> Any:
    """The Config of a method with nothing set. ValueError when it needs something."""
    config = page(folder, name).Config
    for option in required(config):
        raise ValueError(f"{KINDS[folder]} {name!r} needs a {option}: give {name}.Config({option}=...)")
    return config()


def required(config: type) -> list[str]:
    """The fields of a Config class that have no default."""
    fields = dataclasses.fields(config)
    missing = dataclasses.MISSING
    return [f.name for f in fields if f.default is missing and f.default_factory is missing]


def _page_of(folder: str, config: Any) -> ModuleType:
    """The page that a Config belongs to."""
    name = page_name(config)
    if name in names(folder) and isinstance(config, (found := page(folder, name)).Config):
        return found
    kind = KINDS[folder]
    raise ValueError(f"a {kind} must be given by name, by the Config of its page or as an object; got {config!r}")


def methods() -> list[dict[str, Any]]:
    """Every method of the house: name, kind, titles, arxiv, summary, forms, lossless, trained, module, test."""
    return [_describe(folder, name) for folder in KINDS for name in names(folder)]


def _describe(folder: str, name: str) -> dict[str, Any]:
    module = page(folder, name)
    papers: dict[str, str] = getattr(module, "PAPERS", {})
    return {
        "name": name,
        "kind": KINDS[folder],
        "titles": list(papers),
        "arxiv": list(papers.values()),
        "summary": (module.__doc__ or "").strip().splitlines()[0],
        "forms": list(_attribute(module, "forms", ())),
        "lossless": getattr(module, "LOSSLESS", None),
        "trained": getattr(module, "TRAINED", False),
        "module": module.__name__,
        "test": f"tests/{folder}/test_{name}.py",
    }


def _attribute(module: ModuleType, name: str, default: Any) -> Any:
    """A class attribute of the page's own classes."""
    own = [c for _, c in inspect.getmembers(module, inspect.isclass) if c.__module__ == module.__name__]
    return next((getattr(c, name) for c in own if hasattr(c, name)), default)
