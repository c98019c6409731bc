"""Primitives can be watched: who records a model sees one call of a primitive, not what happens inside it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
Watcher = Callable[[str, Callable[[], Any], dict[str, Any]], Any]
"""watcher(name, call, arguments by name) -> what the primitive returns; `call` runs it."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def primitive(function: F) -> F:
    """A stateful operation whose calls `watched` shows."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        watcher = _watcher.get()
        if watcher is None:
            return function(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return watcher(function.__name__, functools.partial(function, *args, **kwargs), dict(bound.arguments))

    return call  # type: ignore[return-value]


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Within, every call of a primitive goes to the watcher (but those that the watcher makes)."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def unwatched() -> Iterator[None]:
    """Within, primitives run as always."""
    token = _watcher.set(None)
    try:
        yield
    finally:
        _watcher.reset(token)
