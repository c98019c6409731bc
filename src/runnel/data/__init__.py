"""Where batches come from, one source a file, of the same name; a path is the source `text`.

Every page has a `Config` (its options), a `Source` (vocab_size, batch, valid, facts) and `PAPERS`. The folders `corpus`
and `baselines` hold what sources stand on and what models are compared with; they are not sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Protocol

from runnel import catalog
from runnel.data import text
from runnel.data.corpus.spool import Codec
from runnel.data.corpus.tables import HUB
from runnel.types import Batch

__all__ = ["Source", "open_source", "training_text"]


class Source(Protocol):
    """What a trainer needs of a source. vocab_size is 0 where items are values. facts: JSON-able, see each page."""

    vocab_size: int
    facts: dict[str, Any]

    def batch(self, index: int) -> Batch: ...
    def valid(self) -> Iterator[Batch]: ...


def open_source(
    spec: str | Path,
    codec: Codec,
    length: int,
    batch_size: int,
    seed: int = 0,
    spool: str | Path | None = None,
    valid_fraction: float = 0.1,
    packing: str | None = None,
) -> Source:
    """A source by path (file or folder), `-` (stdin), or name, with options: `recall:pairs=16`, `lib:suffix=.py`.

    A generator's name wins over a file of the same name; `./recall` is the file.
    `hf://NAME:split=train,limit=10000` is what the package `datasets` calls so.

    length: T. spool: folder of this run for stdin and for tokens. codec and valid_fraction matter for text only.
    packing: a page of `runnel.packings`, how documents of a text share rows of whole documents; None: rows are cut from
    the stream of all documents.
    ValueError in one line for whatever the user got wrong; a mistyped name is answered with the nearest one.
    """
    _check_numbers(length, batch_size, seed)
    name, options = _split(str(spec))
    if _is_text(name):
        config = _config(text.Config, "text", options)
        return text.Source(name, config, codec, length, batch_size, seed, _folder(spool), valid_fraction, packing)
    if packing is not None:
        raise ValueError(f"packing={packing} needs documents: a file, a folder or -; got {spec}")
    page = catalog.page("data", _known(name))
    source: Source = page.Source(_config(page.Config, name, options), length, batch_size, seed)
    return source


def training_text(spec: str | Path, spool: str | Path | None = None, valid_fraction: float = 0.1) -> Iterator[bytes]:
    """The text of a path or stdin before its held-out part, in pieces: what a BPE may be trained on."""
    name, options = _split(str(spec))
    if not _is_text(name):
        raise ValueError(f"a tokenizer is trained on a file, a folder or -; got {spec}")
    stream = text.open_text(name, _config(text.Config, "text", options), _folder(spool))
    return stream.text_pieces(0, text.training_bytes(stream, valid_fraction))


def _check_numbers(length: int, batch_size: int, seed: int) -> None:
    for what, value, least in (("length", length, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{what} must be at least {least}; got {value}")


def _split(spec: str) -> tuple[str, str]:
    """Name and options. A path that exists is taken whole, whatever colons are in it."""
    scheme = HUB if spec.startswith(HUB) else ""
    rest = spec.removeprefix(scheme)
    if spec == "-" or Path(spec).exists() or ":" not in rest:
        return spec, ""
    name, _, options = rest.rpartition(":")
    return scheme + name, options


def _is_text(name: str) -> bool:
    return name == "-" or name.startswith(HUB) or (name not in _generators() and Path(name).exists())


def _generators() -> tuple[str, ...]:
    return tuple(name for name in catalog.names("data") if name != "text")


def _known(name: str) -> str:
    if name in _generators():
        return name
    hint = catalog.suggest(name, _generators())
    raise ValueError(f"source must be a file, a folder, - or a generator; there is no {name!r}{hint}")


def _config(kind: type[Any], name: str, options: str) -> Any:
    """A Config from `key=value,key=value`. ValueError for an unknown key (with the nearest) or a wrong type."""
    known = {field.name: field for field in fields(kind)}
    chosen = {}
    for option in filter(None, options.split(",")):
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            hint = catalog.suggest(key, tuple(known))
            raise ValueError(f"options of {name} must be key=value; got {option!r}{hint}")
        chosen[key] = _value(known[key], value)
    return kind(**chosen)


def _value(field: Field[Any], value: str) -> Any:
    """The text of an option as the type of its default."""
    kind: Any = type(field.default)
    if kind is bool:
        if value not in ("true", "false"):
            raise ValueError(f"{field.name} must be true or false; got {value!r}")
        return value == "true"
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{field.name} must be {kind.__name__}; got {value!r}") from None


def _folder(spool: str | Path | None) -> Path | None:
    return None if spool is None else Path(spool)
