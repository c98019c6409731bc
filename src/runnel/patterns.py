"""Patterns: which mixer and which channel block every layer has, written as one line.

mamba2                          one kind of layer
(mamba2*3, attention)*4         sixteen layers
attention(window=64)            options are the fields of the page's Config
mamba2 & attention              mixers side by side: both read the layer's input, their outputs are added
zamba2 > mamba2                 one ahead of another: what it makes is added to what the other reads, not to the stream
samba(window=64)*4              a page of `wirings/`: a pattern that has a name
mamba2+moe(experts=4)           a channel block other than the model's default; +none for no channel block
"""

from __future__ import annotations

import ast
import dataclasses
import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from runnel import catalog

MAX_LAYERS = 1024
SIZES = ("heads", "kv_heads", "head_dim", "groups", "norm_groups", "d_state", "expand", "conv", "hidden", "width")
"""Options of pages that must be at least 1, wherever they are whole numbers."""
_TOKEN = re.compile(r"\s*([A-Za-z_]\w*|\d+|[()*,+&>])")


@dataclass(frozen=True)
class Part:
    """A page and the options written beside its name."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def config(self, page: ModuleType) -> Any:
        """The page's Config with these options. ValueError when it has no such field, or needs another."""
        known = tuple(f.name for f in dataclasses.fields(page.Config))
        for option in self.options:
            if option not in known:
                raise ValueError(f"{self.name} has no option {option!r}{catalog.suggest(option, known)}")
        for option in catalog.required(page.Config):
            if option not in self.options:
                raise ValueError(f"{self.name} needs a {option}: write {self.name}({option}=...)")
        config = page.Config(**self.options)
        for option in SIZES:
            value = self.options.get(option)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{self.name} needs {option} >= 1; got {value}")
        return config


@dataclass(frozen=True)
class Layer:
    """One layer: a mixer, then a channel block or none.

    beside: mixers that read the same input. ahead: the mixer that these read first (`a > b`: a is ahead of b).
    """

    mixer: Part
    block: Part | None
    beside: tuple[Part, ...] = ()
    ahead: Part | None = None


def parse(pattern: str, channel: str | None, n_layers: int | None = None) -> list[Layer]:
    """The layers of a pattern; repeated whole until there are n_layers, when that is given."""
    default = None if channel in (None, "none") else parse_part(channel, "blocks")
    reader = _Reader(pattern)
    layers = reader.sequence(default)
    reader.expect_end()
    if n_layers is not None:
        if n_layers < 1 or n_layers % len(layers):
            raise ValueError(
                f"n_layers must be a positive multiple of the pattern's {len(layers)} layers; got {n_layers}"
            )
        layers = layers * (n_layers // len(layers))
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"a pattern may have at most {MAX_LAYERS} layers; {pattern!r} has {len(layers)}")
    return layers


def parse_part(text: str, folder: str) -> Part:
    """One page of a folder with its options: `moe(experts=4)`."""
    reader = _Reader(text)
    part = reader.part(folder)
    reader.expect_end()
    return part


class _Reader:
    """Recursive descent over:  sequence = item {"," item};  item = ("(" sequence ")" | wiring | layer) ["*" number];
    layer = [part ">"] part {"&" part} ["+" part];  part = name ["(" name "=" value {"," ...} ")"].
    """

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def sequence(self, default: Part | None) -> list[Layer]:
        layers = self.item(default)
        while self.take(","):
            layers = layers + self.item(default)
        return layers

    def item(self, default: Part | None) -> list[Layer]:
        if self.take("("):
            layers = self.sequence(default)
            if not self.take(")"):
                raise self.error("a closing ')'")
        else:
            layers = self.wiring(default) or [self.layer(default)]
        if not self.take("*"):
            return layers
        count = self.next()
        if not count.isdigit() or not 1 <= int(count) <= MAX_LAYERS:
            raise self.error(f"a number from 1 to {MAX_LAYERS} after '*'", count)
        return layers * int(count)

    def wiring(self, default: Part | None) -> list[Layer]:
        """The layers of a wiring, none where what comes is not the name of one."""
        match = _TOKEN.match(self.text, self.at)
        if match is None or match[1] not in catalog.names("wirings"):
            return []
        part = self.part("wirings")
        page = catalog.page("wirings", part.name)
        return _Reader(page.pattern(part.config(page))).sequence(default)

    def layer(self, default: Part | None) -> Layer:
        ahead, mixer, beside = None, self.part("mixers"), list[Part]()
        if self.take(">"):
            ahead, mixer = mixer, self.part("mixers")
        while self.take("&"):
            beside.append(self.part("mixers"))
        block = default
        if self.take("+"):
            block = None if self.take("none") else self.part("blocks")
        return Layer(mixer, block, tuple(beside), ahead)

    def part(self, folder: str) -> Part:
        name = self.next()
        if not name.isidentifier():
            raise self.error(f"the name of a {catalog.KINDS[folder]}", name)
        catalog.page(folder, name)  # raises, with a suggestion, when there is none
        rest = self.text[self.at :]
        if not re.match(r"\s*\(\s*\w+\s*=", rest):
            return Part(name)
        options = rest[: rest.index(")") + 1] if ")" in rest else rest
        self.at += len(options)
        return Part(name, self.options(options))

    def options(self, text: str) -> dict[str, Any]:
        try:
            call = ast.parse(f"f{text.strip()}", mode="eval").body
            assert isinstance(call, ast.Call) and not call.args
            return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
        except (SyntaxError, ValueError, AssertionError):
            raise ValueError(f"options are written (name=number, ...); got {text.strip()!r} in {self.text!r}") from None

    def take(self, token: str) -> bool:
        match = _TOKEN.match(self.text, self.at)
        if match is None or match[1] != token:
            return False
        self.at = match.end()
        return True

    def next(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            return self.text[self.at :].strip()[:1]
        self.at = match.end()
        return match[1]

    def expect_end(self) -> None:
        if self.text[self.at :].strip():
            raise self.error("',', '*', '+', '&', '>' or the end", self.text[self.at :].strip()[0])

    def error(self, expected: str, found: str | None = None) -> ValueError:
        found = self.next() if found is None else found
        return ValueError(
            f"pattern {self.text!r}: expected {expected}, found {found!r}"
            if found
            else f"pattern {self.text!r}: expected {expected}, found the end"
        )
