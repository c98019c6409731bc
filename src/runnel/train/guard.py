"""What stands between a run and the world: one process a folder, and signals that wait for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout


class Interrupted(Exception):
    """Ctrl-C or SIGTERM, after the checkpoint was saved. `step` is the step it holds, `folder` the run's folder."""

    def __init__(self, step: int, folder: Path) -> None:
        super().__init__(f"stopped at step {step}; saved in {folder}; the same command again goes on from there")
        self.step = step
        self.folder = folder


class Diverged(ValueError):
    """NaN or infinity in the loss, the gradient or the weights. The last checkpoint is from before it."""


class StopSignal:
    """Remembers that SIGINT or SIGTERM came."""

    def __init__(self) -> None:
        self.received = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Signal handler. The next signal acts at once: a second Ctrl-C ends the process without saving."""
        self.received = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Hold SIGINT and SIGTERM until the run looks at them; not outside the main thread, where Python takes none."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however it ends. ValueError when another process holds it."""
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder} must not be in use; another process is training in it") from None
    try:
        yield
    finally:
        lock.release()
