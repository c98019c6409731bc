"""Ray: the jobs of a comparison as tasks of a cluster, one a job, instead of processes of this machine.

A `Fleet` is an executor of `concurrent.futures`, as the pool of processes is: everything else is the same code. The
machines must have Runnel, and see the comparison's folder and its text under the same paths. A task whose worker dies
is begun again, and goes on from the last checkpoint of its run.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

LOCAL = "local"
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""When this is 0 in Ray's environment, its processes listen at 127.0.0.1 alone, on every system."""
RETRIES = 3
"""How often a task is begun again when its worker dies."""

PATIENCE = 10.0
"""Seconds that somebody has to answer at an address."""


def connected(address: str) -> Any:
    """Ray, joined to the cluster at an address; `local` starts one on this machine, until this process ends.

    ValueError when Ray is not there, or nobody answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ.setdefault(LOOPBACK, "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError("--ray needs one more package: pip install 'runnel[ray]'") from None
    _check_answers(address)
    quiet = {"log_to_driver": False, "configure_logging": False, "ignore_reinit_error": True}
    try:
        ray.init(address, **quiet, **({"include_dashboard": False} if address == LOCAL else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--ray must be the address of a running Ray cluster, or local; {address}: {reason}") from None
    return ray


def _check_answers(address: str) -> None:
    """ValueError at once when nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except OSError as error:
            raise ValueError(f"--ray must be the address of a running Ray cluster; {address}: {error}") from None


def cores(address: str) -> int:
    """CPUs of all machines of a cluster."""
    return int(connected(address).cluster_resources().get("CPU", 0))


class Fleet(ThreadPoolExecutor):
    """At most so many tasks at once, each with a CPU of the cluster; a thread here waits for each."""

    def __init__(self, address: str, count: int) -> None:
        super().__init__(count)
        self._ray = connected(address)
        self._task = self._ray.remote(num_cpus=1, max_retries=RETRIES)(_there)
        self._running: set[Any] = set()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._far, work, args, kwargs)

    def _far(self, *asked: Any) -> Any:
        running = self._task.remote(Path.cwd(), *asked)
        self._running.add(running)
        try:
            return self._ray.get(running)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            name = type(error).__name__
            raise OSError(f"a task was ended from outside ({name}); the same command with --resume goes on") from None
        finally:
            self._running.discard(running)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With cancel_futures, runs save their last checkpoint and end."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        for running in tuple(self._running) if cancel_futures else ():
            self._ray.cancel(running)
        super().shutdown(wait=wait)
        self._ray.shutdown()


def _there(folder: Path, work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In a worker: paths mean what they mean where the command was given."""
    os.chdir(folder)
    return work(*args, **kwargs)
