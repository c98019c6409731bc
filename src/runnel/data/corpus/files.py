"""From a path to a stream: one document a file, refused in one line when it cannot be text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from runnel.data.corpus.stream import Stream

_WINDOW = 1 << 16
_WINDOWS = 8


def open_files(path: Path, suffix: str, exclude: list[str], binary: bool) -> Stream:
    """A file, or all files below a folder in sorted order (hidden and empty ones left out), as one stream of bytes.

    suffix: keep the files whose names end so ("" keeps all). exclude: names of files and folders to leave out.
    binary: accept bytes that are not text. ValueError: nothing there, empty, unreadable, not text (with the position).
    """
    found = found_files(path, suffix, exclude)
    sizes = {file: _size(file) for file in found}
    files = [file for file in found if sizes[file]]
    if not files:
        kind = f"no file with content{f' that ends in {suffix}' if suffix else ''}" if path.is_dir() else "no bytes"
        raise ValueError(f"{path} must hold some text; it has {kind}")
    for file in files:
        _check_start(file) if binary else _check_text(file, sizes[file])
    starts = np.cumsum([0] + [sizes[file] for file in files], dtype=np.int64)
    return Stream(files, starts, starts)


def found_files(path: Path, suffix: str, exclude: list[str]) -> list[Path]:
    """A file, or all files below a folder whose names end so. ValueError when there is nothing."""
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    return _walk(path, suffix, exclude) if path.is_dir() else [path]


def _walk(folder: Path, suffix: str, exclude: list[str]) -> list[Path]:
    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in exclude]
        kept = [name for name in names if name.endswith(suffix) and not name.startswith(".") and name not in exclude]
        found += [file for name in kept if (file := Path(where, name)).is_file()]  # no sockets, no dead links
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def _size(path: Path) -> int:
    if not path.is_file():
        raise ValueError(f"{path} must be a regular file or a folder (a pipe can be given as -)")
    return path.stat().st_size


def _check_text(path: Path, size: int) -> None:
    """Look at windows spread over the file; small files are looked at whole."""
    last = max(0, size - _WINDOW)
    for offset in sorted({last * n // (_WINDOWS - 1) for n in range(_WINDOWS)}):
        raw = _read(path, offset, _WINDOW)
        bad = _first_not_text(raw, at_start=offset == 0, at_end=offset + len(raw) >= size)
        if bad is not None:
            what = "a NUL byte" if raw[bad] == 0 else f"byte 0x{raw[bad]:02x}, which is not UTF-8,"
            raise ValueError(
                f"{path} must be text; it has {what} at position {offset + bad} (binary=true allows any bytes)"
            )


def _check_start(path: Path) -> None:
    _read(path, 0, 1)


def _first_not_text(raw: bytes, at_start: bool, at_end: bool) -> int | None:
    """Position of the first NUL or invalid byte. A window may begin and end inside a character."""
    skip = 0
    while not at_start and skip < min(3, len(raw)) and raw[skip] & 0xC0 == 0x80:
        skip += 1
    invalid: int | None = None
    try:
        raw[skip:].decode("utf-8")
    except UnicodeDecodeError as error:
        cut_off = error.reason == "unexpected end of data" and not at_end
        invalid = None if cut_off else skip + error.start
    nul = raw.find(b"\0")
    return min((bad for bad in (invalid, nul if nul >= 0 else None) if bad is not None), default=None)


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(count)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _unreadable(error: OSError) -> None:
    raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error
