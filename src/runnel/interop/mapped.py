"""Tensors in files that are mapped: what is looked at comes from disk, what is written to is copied, page by page.

Queries, keys and values lie apart in a file and are one tensor in a model. `join` maps the pages of the parts one after
the other into one span of addresses; what it copies are the pages where two parts meet, and parts that lie otherwise in
their first page than the join would have them (after a bias or a norm that is no whole number of pages).
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PAGE = mmap.PAGESIZE
LEAST = 2**18
"""Bytes of a join from which on it is mapped."""
MOST = 500
"""Joins of one file that are mapped: a system allows some 65,000 spans for a process."""
FIXED = 0x10
"""MAP_FIXED of Linux."""


class Mapped:
    """A file, in memory as far as it is looked at: pages are read when they are used, and copied when written."""

    def __init__(self, file: Path) -> None:
        self.file, self.joins = file, 0
        self.descriptor = os.open(file, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # a disk reads further ahead
        self._pages = mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_COPY)
        self.bytes: Tensor = torch.frombuffer(self._pages, dtype=torch.uint8)

    def release(self, start: int, stop: int) -> None:
        """Give back the memory of whole pages within [start, stop), none of them written to: they come again."""
        first = -(-start // PAGE) * PAGE
        size = (stop - first) // PAGE * PAGE
        if size > 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED, first, size)


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies in a file: `start` counts bytes from the file's beginning."""

    mapped: Mapped
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    @property
    def raw(self) -> Tensor:
        return self.mapped.bytes[self.start : self.stop]

    def read(self) -> Tensor:
        """A view of the file where the numbers lie even, else a copy. The file must stay as it is meanwhile."""
        return self.numbers(self.raw.clone() if self.start % self.dtype.itemsize else self.raw)

    def numbers(self, raw: Tensor) -> Tensor:
        return raw.view(self.dtype).view(self.shape)

    def release(self) -> None:
        """Give back the memory that reading took; what was read and not written to stays valid."""
        self.mapped.release(self.start, self.stop)


def join(parts: Sequence[Stored]) -> Tensor:
    """Tensors one after the other along the first axis, copied as little as can be."""
    first = parts[0]
    if first.start % first.dtype.itemsize or any(part.dtype != first.dtype for part in parts):
        return torch.cat([part.read() for part in parts])
    whole = replace(first, shape=(sum(part.shape[0] for part in parts), *first.shape[1:]))
    if all(a.mapped is b.mapped and a.stop == b.start for a, b in pairwise(parts)):
        return whole.read()
    size = whole.stop - whole.start
    if sys.platform != "linux" or size < LEAST or first.mapped.joins >= MOST:
        return torch.cat([part.read() for part in parts])
    first.mapped.joins += 1
    return whole.numbers(_side_by_side(parts, size))


def _side_by_side(parts: Sequence[Stored], size: int) -> Tensor:
    """The bytes of the parts, which begin in their first page where the first part does."""
    stop = parts[0].start % PAGE
    span = mmap.mmap(-1, stop + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # unmapped with its last tensor
    made = torch.frombuffer(span, dtype=torch.uint8)
    for part in parts:
        start, stop = stop, stop + part.stop - part.start
        even = (part.start - start) % PAGE == 0
        first, last = (-(-start // PAGE) * PAGE, stop // PAGE * PAGE) if even else (stop, stop)
        if first < last:
            _map(made.data_ptr() + first, last - first, part.mapped.descriptor, part.start + first - start)
        else:
            first = last = stop
        made[start:first] = part.raw[: first - start]
        made[last:stop] = part.raw[last - start :]
    return made[-size:]


def _map(address: int, size: int, descriptor: int, offset: int) -> None:
    """Put whole pages of a file in place of those at an address."""
    access, kind = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | FIXED
    if _system().mmap(address, size, access, kind, descriptor, offset) != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def _system() -> Any:
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_long)
    return system
