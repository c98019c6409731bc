"""Several processes on this machine for a test, as torchrun would start them, but from one warm parent."""

import importlib
import multiprocessing
import os
import socket
import traceback

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["torch._dynamo", "torch.distributed.fsdp", "runnel.train"])
TIMEOUT = 120


def run(count, job, *args):
    """What `job` ("module:function") returns on each of `count` ranks; an exception as (its name, its text)."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(count):
        here, there = SPAWN.Pipe(duplex=False)
        processes.append(SPAWN.Process(target=_child, args=(there, rank, count, port, job, args)))
        processes[-1].start()
        there.close()
        pipes.append(here)
    return [_result(pipe, process) for pipe, process in zip(pipes, processes, strict=True)]


def _result(pipe, process):
    try:
        if not pipe.poll(TIMEOUT):
            process.kill()
            return ("Timeout", f"no result after {TIMEOUT} s")
        return pipe.recv()
    except EOFError:
        return ("Killed", "no result")
    finally:
        process.join(TIMEOUT)


def _child(pipe, rank, count, port, job, args):
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    import torch

    torch.set_num_threads(1)
    module, name = job.split(":")
    try:
        pipe.send(getattr(importlib.import_module(module), name)(*args))
    except Exception as error:
        if os.environ.get("RUNNEL_TRACEBACK"):
            traceback.print_exc()
        pipe.send((type(error).__name__, str(error)))
