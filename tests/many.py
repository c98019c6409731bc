"""Several processes on this machine for a test, as torchrun would start them, but from one warm parent."""

import importlib
import multiprocessing
import os
import socket
import traceback

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp", "runnel.train"])
TIMEOUT = 120

_crowds = {}
"""Processes that wait for their next job, by how many they are."""


def run(count, job, *args):
    """What `job` ("module:function") returns on each of `count` ranks; an exception as (its name, its text)."""
    crowd = _Crowd(count)
    found = crowd.do(job, args)
    crowd.end()
    return found


def again(count, job, *args):
    """The same in processes that stay for the next call, if none failed."""
    crowd = _crowds.pop(count, None) or _Crowd(count)
    found = crowd.do(job, args)
    if crowd.is_whole:
        _crowds[count] = crowd
    return found


class _Crowd:
    def __init__(self, count):
        pairs = [SPAWN.Pipe() for _ in range(count)]
        self.pipes = [here for here, _ in pairs]
        places = [(there, rank, count) for rank, (_, there) in enumerate(pairs)]
        self.processes = [SPAWN.Process(target=_child, args=place, daemon=True) for place in places]
        for process, (_, there) in zip(self.processes, pairs, strict=True):
            process.start()
            there.close()
        self.is_whole = True
        """All of them can do another job."""

    def do(self, job, args):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        for pipe in self.pipes:
            pipe.send((port, job, args))
        return [self._result(pipe, process) for pipe, process in zip(self.pipes, self.processes, strict=True)]

    def end(self):
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.close()
            process.join(TIMEOUT)

    def _result(self, pipe, process):
        try:
            if pipe.poll(TIMEOUT):
                ended, found = pipe.recv()
            else:
                process.kill()
                ended, found = True, ("Timeout", f"no result after {TIMEOUT} s")
        except EOFError:
            ended, found = True, ("Killed", "no result")
        self.is_whole = self.is_whole and not ended
        return found


def _child(pipe, rank, count):
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            port, job, args = pipe.recv()
        except EOFError:
            return
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
        module, name = job.split(":")
        try:
            pipe.send((False, getattr(importlib.import_module(module), name)(*args)))
        except Exception as error:
            if os.environ.get("RUNNEL_TRACEBACK"):
                traceback.print_exc()
            pipe.send((True, (type(error).__name__, str(error))))
            return  # its end is what other ranks notice
