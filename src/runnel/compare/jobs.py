"""The jobs of a comparison, side by side in processes; each writes its own line of results.jsonl when it has ended."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from filelock import FileLock

from runnel import train
from runnel.compare.plan import Plan
from runnel.compare.work import Job, perform
from runnel.storage import append_line, read_lines

FILE = "results.jsonl"
Record = dict[str, Any]
Asked = tuple[Plan, Job, Path]


def run_jobs(
    plan: Plan, folder: Path, progress: Callable[[float, str], None], workers: Callable[[int], Executor] | None = None
) -> list[Record]:
    """Do what is not done yet; every record there is. KeyboardInterrupt and a killed worker leave what is finished.

    workers: what does so many jobs at once (`fleet.Fleet`); processes of this machine when left out.
    """
    (folder / "locks").mkdir(exist_ok=True)
    with (workers or _processes)(plan.workers) as pool:
        try:
            for number, (jobs_of, at_once) in enumerate(STAGES):
                jobs = list(jobs_of(plan, read_records(folder)))
                todo = [job for job in jobs if finished(job, read_records(folder)) is None]
                done = len(jobs) - len(todo)
                for job in at_once(pool, [(plan, job, folder) for job in todo]):
                    done += 1
                    progress((number + done / len(jobs)) / len(STAGES), f"{job.kind} {_title(plan, job)}")
        except BrokenProcessPool:
            raise OSError("a worker was ended from outside; the same command with --resume goes on") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return read_records(folder)


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=_begin_worker)


def read_records(folder: Path) -> list[Record]:
    """The finished jobs."""
    return read_lines(folder / FILE)


def finished(job: Job, records: Sequence[Record]) -> Record | None:
    return next((record for record in records if job.key().items() <= record.items()), None)


def best_rate(plan: Plan, records: Sequence[Record], model: int) -> float:
    """The tried rate with the lowest held-out loss; the smallest when all diverged."""
    if len(plan.rates) == 1:
        return plan.rates[0]
    tried = [record for record in records if record["kind"] == "rate" and record["model"] == model]
    scored = {record["rate"]: record["nats"] for record in tried if "diverged" not in record}
    return min(scored, key=lambda rate: scored[rate], default=min(plan.rates))


def _rates(plan: Plan, records: list[Record]) -> Iterator[Job]:
    if len(plan.rates) > 1:
        for model in range(len(plan.entrants)):
            yield from (Job("rate", model, rate=rate) for rate in plan.rates)


def _runs(plan: Plan, records: list[Record]) -> Iterator[Job]:
    rates = [best_rate(plan, records, model) for model in range(len(plan.entrants))]
    for seed in range(plan.seeds):
        for model, rate in enumerate(rates):
            yield Job("text", model, seed, rate)
    for seed in range(plan.seeds):
        for task in plan.tasks:
            for model, rate in enumerate([*rates, plan.rates[len(plan.rates) // 2]]):
                yield Job("task", model, seed, rate, task)


def _speeds(plan: Plan, records: list[Record]) -> Iterator[Job]:
    yield from (Job("speed", model) for model in range(len(plan.entrants)))


def _side_by_side(pool: Executor, asked: Sequence[Asked]) -> Iterator[Job]:
    futures = {pool.submit(_perform, *job): job[1] for job in asked}
    for future in as_completed(futures):
        future.result()
        yield futures[future]


def _one_by_one(pool: Executor, asked: Sequence[Asked]) -> Iterator[Job]:
    for job in asked:
        pool.submit(_perform, *job).result()
        yield job[1]


STAGES = ((_rates, _side_by_side), (_runs, _side_by_side), (_speeds, _one_by_one))
"""Rates are tried first, because the runs need the best; speeds come last and undisturbed."""


def _perform(plan: Plan, job: Job, folder: Path) -> None:
    """In a worker: it appends its own line, so that finished work counts whatever becomes of the process that asked."""
    with FileLock(folder / "locks" / f"{job.name()}.lock"):
        if finished(job, read_records(folder)) is not None:
            return
        try:
            append_record(folder, perform(plan, job, folder))
        except train.Interrupted as stopped:
            raise KeyboardInterrupt(f"stopped at step {stopped.step} of {job.name()}") from None


def _begin_worker() -> None:
    """Between runs Ctrl-C is for the process that asked; when that is gone, so is the worker: its run goes on later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def append_record(folder: Path, record: Record) -> None:
    with FileLock(folder / "locks" / "results.lock"):
        append_line(folder / FILE, record)


def _title(plan: Plan, job: Job) -> str:
    return " ".join(part for part in (plan.controls[job.model].pattern, job.task) if part)
