"""Files laid end to end as one long array of items, of which only the pieces asked for are ever read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

PIECE = 1 << 16
"""Bytes of text that are encoded at once."""


@dataclass(frozen=True)
class Stream:
    """An array on disk. Reading copies a slice out of the files instead of mapping them: a file that is truncated while
    a run goes on is then a ValueError, where a mapping would kill the process.

    paths: the files. starts: (P + 1,) int64, first item of each file, then the total.
    documents: (D + 1,) int64, first item of each document, then the total. dtype: that of an item on disk.
    """

    paths: Sequence[Path]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]
    dtype: DTypeLike = np.uint8

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Items [start, stop), in the dtype on disk. ValueError when a file has become shorter."""
        assert 0 <= start <= stop <= len(self)
        out = np.empty(stop - start, self.dtype)
        part = int(np.searchsorted(self.starts, start, side="right")) - 1
        filled = 0
        while filled < len(out):
            offset = start + filled - int(self.starts[part])
            count = min(len(out) - filled, int(self.starts[part + 1]) - start - filled)
            out[filled : filled + count] = self._read_part(part, offset, count)
            filled, part = filled + count, part + 1
        return out

    def borders(self, start: int, stop: int) -> NDArray[np.int64]:
        """Those of the items [start, stop) that begin a document, counted from `start`."""
        low, high = np.searchsorted(self.documents, [start, stop])
        return self.documents[low:high] - start

    def text_pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop) in pieces of at most 64 KiB that end after a newline, or else not inside a character."""
        while start < stop:
            raw = self.read(start, min(start + PIECE, stop)).tobytes()
            piece = raw if start + len(raw) == stop else raw[: _last_cut(raw)]
            yield piece
            start += len(piece)

    def _read_part(self, part: int, offset: int, count: int) -> NDArray[Any]:
        path, itemsize = self.paths[part], np.dtype(self.dtype).itemsize
        try:
            items = np.fromfile(path, self.dtype, count, offset=offset * itemsize)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from error
        if len(items) != count:
            size = int(self.starts[part + 1] - self.starts[part]) * itemsize
            raise ValueError(f"{path} must keep its {size} bytes while it is used; it has become shorter")
        return items


def _last_cut(raw: bytes) -> int:
    newline = raw.rfind(b"\n") + 1
    if newline:
        return newline
    end = len(raw) - 1
    while end > 0 and len(raw) - end < 4 and raw[end] & 0xC0 == 0x80:  # back to the lead byte of the last character
        end -= 1
    return end or len(raw)
