"""What the processes of test_ranks.py do; a module of its own, so that a fresh process can import it.

As a script under torchrun, a run with pauses that may be killed twice: jobs.py TEXT FOLDER STEPS PAUSE KILLED.
"""

import os
import resource
import signal
import sys
import time
from pathlib import Path

import small_run
import torch

import runnel
from runnel.layouts._traffic import Traffic
from runnel.objectives import next_token
from runnel.train import Interrupted, Mesh, TrainConfig, checkpoint, fit, identity, loop, opened, parts, sharding


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


def start_differently(text, folder, what, other):
    """Ranks that do not start the same run. other: another text."""
    rank = int(os.environ["RANK"])
    with opened() as ranks:
        if what == "code" and rank:
            loop.describe_code = lambda: "another version"
        pattern = "gru" if what == "model" and rank else "mingru"
        lr = 0.1 if what == "settings" and rank else 0.01
        model = small_run.make_model(noisy=False, pattern=pattern)
        source = small_run.make_source(other if what == "data" and rank else text, 4)
        try:
            fit(model, source, folder, TrainConfig(steps=2, lr=lr), None, ranks)
        finally:
            loop.describe_code = identity.describe_code


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
        if report.step == step and int(os.environ.get("RANK", "0")) == 0:
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


def gathered(text, used_in, offload):
    """Loss, bytes gathered and gradient of one sharded step."""
    with opened() as ranks:
        model = small_run.make_model(noisy=False)
        batch = small_run.make_source(text, 4).batch(0)
        sharding.shard(model, ranks.devices, used_in, offload)
        share = ranks.own(batch)
        with Traffic() as traffic:
            loss = next_token.loss(model, share.batch) * share.n_targets / batch.n_targets
            loss.backward()
        gradients = sharding.whole({name: p.grad for name, p in model.named_parameters()})
        kinds = {str(gradient.dtype) for gradient in gradients.values()}
        flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
        return ranks.total(loss.item()), traffic.bytes["_allgather_base_"], kinds, flat


def killed_together(text, folder, step, settings):
    """All ranks are killed after the same step."""

    def on_step(report):
        if report.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        fit(model, small_run.make_source(text, 5), folder, TrainConfig(**settings), on_step, ranks)


def elastic(text, folder, steps, pause, killed):
    """killed: rank 1 in the first attempt, all ranks in the second."""
    attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])

    def on_step(report):
        time.sleep(pause)
        if killed and ((attempt, rank, report.step) == (0, 1, 3) or (attempt, report.step) == (1, 6)):
            os.kill(os.getpid(), signal.SIGKILL)

    with opened() as ranks:
        model = small_run.make_model(noisy=False).double()
        settings = {**small_run.SAVING, "steps": steps}
        fit(model, small_run.make_source(text, 5), Path(folder), TrainConfig(**settings), on_step, ranks)


if __name__ == "__main__":
    torch.set_num_threads(1)
    elastic(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), sys.argv[5] == "killed")
