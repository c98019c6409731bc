"""Text: a file, a folder of files (one document each), a table, or stdin, streamed from disk and never held in memory.

All documents form one stream of tokens: with the byte codec the files themselves, with another one
`<spool>/tokens.bin`, encoded once. The last `valid_fraction` of the bytes is held out, the same bytes whatever the
codec. How rows are cut, shuffled and kept apart where documents meet is told in `corpus/rows.py`; `corpus/documents.py`
makes rows of whole documents.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runnel.data.corpus.documents import Bucketed, Packed, arrange
from runnel.data.corpus.files import found_files, open_files
from runnel.data.corpus.rows import TrainRows, held_out_rows, to_batch
from runnel.data.corpus.spool import Codec, encode_to_disk, spool_stdin
from runnel.data.corpus.stream import Stream
from runnel.data.corpus.tables import HUB, SUFFIXES, spool_dataset, spool_tables
from runnel.types import Batch

PAPERS: dict[str, str] = {}

NOT_ITS_OWN = ("test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "pydoc_data", "lib2to3")
"""Folders of Python's standard library that hold tests, tables, or what is not the library's own."""
_COUNTED_AT_ONCE = 1 << 20

Arranged = TrainRows | Packed | Bucketed


@dataclass(frozen=True)
class Config:
    """Options of a path: `folder:suffix=.py,exclude=test+idlelib`.

    suffix: of a folder, only files whose names end so. exclude: names of files and folders to leave out, joined by +.
    binary: accept bytes that are not text (byte codec only). column: of a table, where the text is. split: of a dataset
    (hf://NAME). limit: of either, this many rows at most; 0 for all.
    """

    suffix: str = ""
    exclude: str = ""
    binary: bool = False
    column: str = "text"
    split: str = "train"
    limit: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"limit must be at least 0; got {self.limit}")


def standard_library() -> str:
    """The source of Python's standard library as data: real text that every machine has."""
    return f"{sysconfig.get_path('stdlib')}:suffix=.py,exclude={'+'.join(NOT_ITS_OWN)}"


class Source:
    """Batches of a text: a path, or a stream of bytes. length: T. spool: folder for copies, one per run; needed for
    stdin, tables and codecs with merges. packing: a page of `runnel.packings` that arranges whole documents; None cuts
    rows from the stream of all of them.

    ValueError: nothing there, empty, unreadable, not text (with the position), or too short for rows of T.
    """

    def __init__(
        self,
        path: str | Stream,
        config: Config,
        codec: Codec,
        length: int,
        batch_size: int,
        seed: int = 0,
        spool: Path | None = None,
        valid_fraction: float = 0.1,
        packing: str | None = None,
    ) -> None:
        text = path if isinstance(path, Stream) else open_text(path, config, spool)
        path = path if isinstance(path, str) else str(path.paths[0])
        self.stream, self.cut = text, training_bytes(text, valid_fraction)
        if codec.name != "bytes":
            self.stream, self.cut = encode_to_disk(text, self.cut, codec, _needed(spool, f"codec {codec.name}"))
        self.codec = codec
        self.vocab_size = codec.vocab_size
        self.length, self.batch_size = length, batch_size
        if len(self.stream) < length + 2 or self.cut < length + 1:
            least = f"at least {length + 2} tokens, {length + 1} of them to train on, for length={length}"
            raise ValueError(f"{path} must have {least}; it has {len(self.stream)}, {self.cut} to train on")
        if packing is not None:
            self._train: Arranged = arrange(self.stream, self.cut, length, batch_size, seed, packing)
        else:
            self._train = TrainRows(self.stream, self.cut, length, batch_size, seed)
        self.facts = self._facts(path, len(text))

    def batch(self, index: int) -> Batch:
        """The index-th training batch, inputs and targets (B, T): a pure function of (text, seed, index)."""
        if index < 0:
            raise ValueError(f"batch index must be >= 0; got {index}")
        return self._train.batch(index)

    def valid(self) -> Iterator[Batch]:
        """The whole held-out part in order, every item a target once; the last batch may have fewer rows."""
        for first in range(0, self._n_valid_rows, self.batch_size):
            yield to_batch(held_out_rows(self.stream, self.cut, self.length, first, self.batch_size))

    def sample(self, limit: int = 8 << 20) -> tuple[bytes, bytes]:
        """What baselines read: the last `limit` tokens before the cut and the first `limit` held-out ones, as bytes."""
        train = self.stream.read(max(0, self.cut - limit), self.cut)
        held_out = self.stream.read(self.cut, min(len(self.stream), self.cut + limit))
        return self._as_bytes(train), self._as_bytes(held_out)

    @property
    def _n_valid_rows(self) -> int:
        return -(-(len(self.stream) - self.cut) // self.length)

    def _as_bytes(self, tokens: np.ndarray[Any, Any]) -> bytes:
        return b"".join(self.codec.token_bytes[token] for token in tokens.tolist())

    def _facts(self, path: str, n_bytes: int) -> dict[str, Any]:
        valid_tokens = len(self.stream) - self.cut
        valid_bytes = self._count_bytes(self.cut, len(self.stream))
        return {
            "source": path,
            "bytes": n_bytes,
            "documents": len(self.stream.documents) - 1,
            "train_tokens": self.cut,
            "valid_tokens": valid_tokens,
            "valid_bytes": valid_bytes,
            "bytes_per_token": valid_bytes / valid_tokens if valid_tokens else n_bytes / len(self.stream),
            "rows_per_epoch": self._train.per_epoch,
            "valid_batches": -(-self._n_valid_rows // self.batch_size),
            "fingerprint": self._fingerprint(),
            **self._empty_columns(),
        }

    def _empty_columns(self) -> dict[str, float]:
        """Shares of columns that hold nothing, as arranged and with documents as they come."""
        if isinstance(self._train, TrainRows):
            return {}
        return {"padding": self._train.padding, "padding_before": self._train.padding_before}

    def _count_bytes(self, start: int, stop: int) -> int:
        """How many bytes the tokens [start, stop) stand for."""
        if self.codec.name == "bytes":
            return stop - start
        sizes = np.array([len(piece) for piece in self.codec.token_bytes])
        parts = range(start, stop, _COUNTED_AT_ONCE)
        return sum(int(sizes[self.stream.read(at, min(at + _COUNTED_AT_ONCE, stop))].sum()) for at in parts)

    def _fingerprint(self) -> str:
        """Changes when the text does (ends of documents, and items at 64 places): a run goes on only with the same."""
        digest = hashlib.sha256(self.codec.fingerprint.encode() + self.stream.documents.tobytes())
        for start in np.linspace(0, max(0, len(self.stream) - 64), 64).astype(int).tolist():
            digest.update(self.stream.read(start, min(start + 64, len(self.stream))).tobytes())
        return digest.hexdigest()[:16]


def open_text(path: str, config: Config, spool: Path | None) -> Stream:
    """The bytes of a path, of the tables there (`corpus/tables.py`), of a dataset, or of stdin for "-"."""
    exclude = [name for name in config.exclude.split("+") if name]
    if path == "-":
        return open_files(spool_stdin(_needed(spool, "stdin")), config.suffix, exclude, config.binary)
    if path.startswith(HUB):
        return spool_dataset(path, config.split, config.column, config.limit, _needed(spool, path))
    tables = [file for file in found_files(Path(path), config.suffix, exclude) if file.suffix in SUFFIXES]
    if tables:
        return spool_tables(tables, config.column, config.limit, _needed(spool, path))
    return open_files(Path(path), config.suffix, exclude, config.binary)


def training_bytes(text: Stream, valid_fraction: float) -> int:
    """How many bytes come before the held-out part; it never begins inside a UTF-8 character."""
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction must be in [0, 1); got {valid_fraction}")
    cut = int(len(text) * (1 - valid_fraction))
    around = text.read(max(0, cut - 3), min(cut + 1, len(text)))[::-1].tolist()  # the byte at the cut comes first
    inside = next((n for n, byte in enumerate(around) if byte & 0xC0 != 0x80), 0)
    return cut - inside if cut < len(text) else cut


def _needed(spool: Path | None, what: str) -> Path:
    if spool is None:
        raise ValueError(f"{what} must have a spool folder to copy to; got spool=None")
    return spool
