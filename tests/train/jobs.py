"""What the processes of test_ranks.py do; a module of its own, so that a fresh process can import it."""

import os
import resource
import signal

import small_run
import torch

import runnel
from runnel.train import Interrupted, Mesh, TrainConfig, checkpoint, fit, opened, parts


def train(text, folder, mesh, settings, batch_size=5, pattern="mingru, attention"):
    """One run without dropout, in float64: (its losses, its last weights)."""
    reports = []
    with opened(mesh) as ranks:
        model = small_run.make_model(noisy=False, pattern=pattern).double()
        source = small_run.make_source(text, batch_size)
        result = fit(model, source, folder, TrainConfig(**settings), reports.append, ranks)
        weights = torch.cat([p.detach().flatten() for p in runnel.load(folder).parameters()])
        return [report.loss for report in reports], result.valid_loss, weights.tolist()


def stumble(text, folder, culprit, how):
    """A run in which one rank fails in a step of its own."""

    def on_step(report):
        if report.step == 3 and int(os.environ["RANK"]) == culprit:
            if how == "user":
                raise ValueError("the data of this rank is bad")
            if how == "bug":
                raise KeyError("a bug")
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGTERM)

    with opened() as ranks:
        config = TrainConfig(**{**small_run.SAVING, "steps": 200})
        fit(small_run.make_model(noisy=False), small_run.make_source(text), folder, config, on_step, ranks)


def start_differently(text, folder, what):
    """Ranks that do not start the same run."""
    rank = int(os.environ["RANK"])
    with opened() as ranks:
        pattern = "gru" if what == "model" and rank else "mingru"
        lr = 0.1 if what == "settings" and rank else 0.01
        model = small_run.make_model(noisy=False, pattern=pattern)
        fit(model, small_run.make_source(text, 4), folder, TrainConfig(steps=2, lr=lr), None, ranks)


def too_many():
    with opened(Mesh(data=3)):
        pass


def interrupted(text, folder):
    try:
        stumble(text, folder, 1, "term")
    except Interrupted as error:
        return error.step


def interrupted_at(text, folder, step, settings):
    """A run in float64 that a signal to rank 0 stops."""

    def on_step(report):
        if report.step == step and int(os.environ["RANK"]) == 0:
            os.kill(os.getpid(), signal.SIGINT)

    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        fit(model, small_run.make_source(text, 5), folder, TrainConfig(**settings), on_step, ranks)


def killed_at(text, folder, step, settings):
    """Rank 0 is killed while it writes a checkpoint."""
    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        if ranks.is_first:
            move = checkpoint._move

            def die(temporary, final):
                if final.name.endswith(str(step)):
                    os.kill(os.getpid(), signal.SIGKILL)
                move(temporary, final)

            checkpoint._move = die
        fit(model, small_run.make_source(text, 5), folder, TrainConfig(**settings), None, ranks)


def killed_in_a_part(text, folder, step, settings, culprit):
    """A rank is killed in the thread that writes its part, or, rank 0, before it says that all parts are there."""
    place = "complete" if culprit == 0 else "write"
    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        if ranks.index == culprit:
            original = parts._Writer.finish if place == "complete" else parts._Writer.write_data

            def die(writer, *args, **named):
                if writer.step == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(writer, *args, **named)

            setattr(parts._Writer, "finish" if place == "complete" else "write_data", die)
        fit(model, small_run.make_source(text, 5), folder, TrainConfig(**settings), None, ranks)


def full_disk(text, folder, culprit, settings):
    """The disk of one rank is full from step 3 on."""

    def on_step(report):
        if report.step == 3 and int(os.environ["RANK"]) == culprit:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))

    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        fit(model, small_run.make_source(text, 5), folder, TrainConfig(**settings), on_step, ranks)
