"""Copies on disk of what cannot be read at any place: stdin, records, the tokens of a text. One spool folder a run."""

from __future__ import annotations

import filecmp
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from runnel.data.corpus.stream import Stream
from runnel.storage import read_json, write_atomically, write_json

_CHUNK = 1 << 20
_BATCH = 16


class Codec(Protocol):
    """What this room asks of a codec (`runnel.codecs.Codec` has it)."""

    name: str
    token_bytes: Sequence[bytes]

    @property
    def vocab_size(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def encode_batch(self, texts: Sequence[str | bytes]) -> list[list[int]]: ...


def spool_stdin(folder: Path) -> Path:
    """Copy standard input to `<folder>/stdin.bin` piecewise and return that path.

    When nothing is piped in and the file is there already (a resumed run), it is used as it is; when the same bytes
    come again it is left alone. ValueError when there is neither a pipe nor a file.
    """
    path = folder / "stdin.bin"
    piped = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer
    first = piped.read(_CHUNK) if piped else b""
    if piped and first:
        write_atomically(folder / "stdin.new", lambda target: _copy(first, piped, target))
        same = path.exists() and filecmp.cmp(path, folder / "stdin.new", shallow=False)
        (folder / "stdin.new").unlink() if same else (folder / "stdin.new").replace(path)
    elif not path.exists():
        raise ValueError("stdin must have some text piped into it for the source -; it is empty")
    return path


def encode_to_disk(text: Stream, cut: int, codec: Codec, folder: Path) -> tuple[Stream, int]:
    """The tokens of a text, from `<folder>/tokens.bin` (uint16, or uint32 for more than 65,536 ids).

    cut: a byte where a token must end (where the held-out part begins); returned beside the stream, counted in tokens.
    Encoded once, piece by piece; used again as long as the codec and every file's path, size and time of change are the
    same. ValueError with the file and the position where the text is not UTF-8.
    """
    tokens = folder / "tokens.bin"
    dtype = np.dtype(np.uint16 if codec.vocab_size <= 1 << 16 else np.uint32)
    borders = np.union1d(text.documents, [cut])
    key = key_of([codec.fingerprint, cut], text.paths)
    at = _once(tokens, key, dtype, lambda target: _encode(text, borders, codec, dtype, target))
    documents = at[np.isin(borders, text.documents)]
    return Stream([tokens], at[[0, -1]], documents, dtype), int(at[np.searchsorted(borders, cut)])


def write_documents(documents: Iterable[bytes], folder: Path, key: str | None = None) -> Stream:
    """Documents one after the other in `<folder>/documents.bin`, one held at a time; empty ones are left out.

    key: what they are; what is there of the same key is used again. None: written in any case. ValueError when there is
    no document.
    """
    path = folder / "documents.bin"
    ends = _once(path, key, np.dtype(np.uint8), lambda target: _write(documents, target))
    return Stream([path], ends[[0, -1]], ends)


def key_of(facts: Sequence[Any], paths: Sequence[Path]) -> str:
    """Changes with the facts, and with any file's path, size and time of change."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps([*facts, files]).encode()).hexdigest()


def _once(
    path: Path, key: str | None, dtype: np.dtype[Any], write: Callable[[Path], Iterator[int]]
) -> NDArray[np.int64]:
    """(N + 1,): 0, and where the parts end that `write` writes to `path`, unless the file of this key is there."""
    record = path.with_suffix(".json")
    ends = None if key is None else _cached(path, record, key, dtype)
    if ends is None:
        record.unlink(missing_ok=True)  # first: the old record must never stand beside the new file
        fresh = [0]
        write_atomically(path, lambda target: fresh.extend(write(target)))
        write_json(record, {"key": key, "ends": fresh})
        ends = fresh
    return np.array(ends, dtype=np.int64)


def _write(documents: Iterable[bytes], target: Path) -> Iterator[int]:
    end = 0
    with target.open("wb") as file:
        for document in filter(None, documents):
            file.write(document)
            end += len(document)
            yield end
    if not end:
        raise ValueError("documents must have some text; there is none")


def _copy(first: bytes, source: BinaryIO, target: Path) -> None:
    with target.open("wb") as file:
        file.write(first)
        while chunk := source.read(_CHUNK):
            file.write(chunk)


def _encode(
    text: Stream, borders: NDArray[np.int64], codec: Codec, dtype: np.dtype[Any], target: Path
) -> Iterator[int]:
    """Write the tokens of the bytes between each two borders; yield where they end, counted in tokens."""
    end = 0
    with target.open("wb") as file:
        for begin, stop in pairwise(borders.tolist()):
            pieces = _checked(text, begin, stop)
            while batch := list(islice(pieces, _BATCH)):
                for ids in codec.encode_batch(batch):
                    np.array(ids, dtype=dtype).tofile(file)
                    end += len(ids)
            yield end


def _checked(text: Stream, begin: int, stop: int) -> Iterator[str]:
    file = int(np.searchsorted(text.starts, begin, side="right")) - 1
    done = begin - int(text.starts[file])
    for piece in text.text_pieces(begin, stop):
        try:
            yield piece.decode("utf-8")
        except UnicodeDecodeError as error:
            where = f"{text.paths[file]} must be UTF-8 for this codec"
            raise ValueError(
                f"{where}; byte 0x{piece[error.start]:02x} at position {done + error.start} is not"
            ) from error
        done += len(piece)


def _cached(path: Path, record: Path, key: str, dtype: np.dtype[Any]) -> list[int] | None:
    """The ends of a cache that fits the key; None when there is none, or it is damaged (it is then made again)."""
    try:
        content = read_json(record)
        ends: list[int] = content["ends"]
        whole = content["key"] == key and path.stat().st_size == ends[-1] * dtype.itemsize
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return ends if whole else None
