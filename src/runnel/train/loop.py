"""The training loop.

    folder/checkpoints/      to go on from (see `checkpoint.py`)
           metrics.jsonl     one line a step (see `metrics.py`)
           config.json, model.safetensors, codec.json ...      at the end: what `runnel.load(folder)` reads, or
                                                               `runnel.drafters.load(folder, target)`

The state of a run is a pure function of (model, source, config, step): micro-batch i of step s is
`source.batch(s * accumulate + i)`, and a checkpoint holds everything else (weights, averages, optimiser state by
parameter name, PyTorch's generator). A run with `steps` that is killed at any moment and started again therefore ends
with the same bits as the run that never was, on one machine with one number of threads: `torch.set_num_threads`
changes the order of sums, and so do other processors. On CUDA this holds as far as the kernels are deterministic
(`torch.use_deterministic_algorithms`). A run with `budget` follows the clock and cannot be repeated to the bit.

On several ranks (`ranks.py`) each computes its share of every batch, and the gradients are summed; rank 0 alone writes.
Another mesh is the same run but for rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from runnel import catalog
from runnel.data import Source
from runnel.model import Model
from runnel.train import checkpoint, optim, over_time, sharding, weights
from runnel.train.config import TrainConfig
from runnel.train.guard import Diverged, Interrupted, StopSignal, locked, stop_signal
from runnel.train.identity import check_same_run, describe_code, describe_run
from runnel.train.learner import Learner, save_learner
from runnel.train.metrics import MetricsLog
from runnel.train.parts import Parts
from runnel.train.ranks import Ranks, Share
from runnel.train.records import Position, StepReport, TrainResult, bits_per_byte
from runnel.train.schedules import SCHEDULES
from runnel.types import IGNORE, Batch


def fit(
    model: Learner,
    source: Source,
    folder: str | Path,
    config: TrainConfig,
    on_step: Callable[[StepReport], None] | None = None,
    ranks: Ranks | None = None,
) -> TrainResult:
    """Train a model, or a drafter of a frozen one, in place, and export it to `folder`, going on from the folder's
    checkpoint when it has one.

    The exported weights, which the model then also holds, are the best validated ones with `patience`, else the average
    with `ema`, else the last (buffers are the last ones in any case). PyTorch's generator is left as it was found.
    A run that had ended is only exported again.

    ranks: this process's place among several that call `fit` alike (`runnel.train.ranks.opened`); else it is alone.

    Raises ValueError when the folder is in use, holds another run (the differences are named) or no good checkpoint;
    `Diverged` on NaN or infinity; `Interrupted` after SIGINT or SIGTERM; OSError when the disk is full.
    """
    folder, ranks = Path(folder), ranks or Ranks()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) if ranks.is_first else nullcontext(), stop_signal() as stop, _own_generator(model.device):
        run = Run(model, source, folder, config, ranks)
        with run.open_log() as log:
            run.train(log, on_step, stop)
        return run.export()


class Run:
    """One run, as one of its ranks sees it: made from the folder's checkpoint, or at step 0."""

    def __init__(self, model: Learner, source: Source, folder: Path, config: TrainConfig, ranks: Ranks) -> None:
        self.model, self.source, self.folder, self.config, self.ranks = model, source, folder, config, ranks
        self.device = model.device
        _check_vocabulary(model, source)
        self.loss = _loss_of(config.objective, ranks)
        if config.chunk is not None and not (isinstance(model, Model) and ranks.mesh.sequence == 1):
            raise ValueError(f"chunk={config.chunk} needs a model, not a drafter, and a mesh with sequence=1")
        _arrange(model, config, ranks)
        self.optimizers = optim.build_optimizers(model, config)
        self.token_bytes = _token_bytes(source)
        self.identity = describe_run(model, source, config)
        ranks.check_same({"run": self.identity, "code": describe_code(), "folder": str(folder.resolve())})
        self.average = weights.snapshot(model) if config.ema is not None else None
        self.best: dict[str, Tensor] | None = None
        self.position = Position()
        self.saved: Position | None = None
        self.parts = Parts(folder, ranks.group_of_its_own()) if config.checkpoints == "sharded" else None
        torch.manual_seed(config.seed)
        self._restore()
        ranks.wait()  # before rank 0 writes what another would still read
        self.saved_at = time.perf_counter()
        self.began = self.saved_at - self.position.seconds

    def open_log(self) -> AbstractContextManager[MetricsLog | None]:
        """metrics.jsonl, on rank 0."""
        if not self.ranks.is_first:
            return nullcontext()
        return MetricsLog(self.folder, self.position.step, self.position.validated, self.config.tensorboard)

    # ---- the loop -----------------------------------------------------------------------------------------------

    def train(self, log: MetricsLog | None, on_step: Callable[[StepReport], None] | None, stop: StopSignal) -> None:
        """Steps, validations and checkpoints until the run has ended. `Interrupted` when a signal came."""
        if self.saved is None:
            self.save()  # at step 0: a full disk shows before the work, and the folder knows its run
        while True:
            if self._validation_is_due():
                self.validate(log, stop)
            if self._agree(stop.received):
                self.save()
                self.settle()
                raise Interrupted(self.position.step, self.folder)
            if self._reason_to_end():
                break
            if self._agree(time.perf_counter() - self.saved_at >= self.config.save_seconds):
                self.save()
            report = self.step()
            if log is not None and report.step % self.config.log_every == 0:
                log.write(report.as_line())
            if on_step is not None:
                on_step(report)
        self.save()
        self.settle()

    def step(self) -> StepReport:
        """One optimiser step. `Diverged`, before any weight is touched, when the loss or the gradient is not finite."""
        started, position, config = time.perf_counter(), self.position, self.config
        factor = SCHEDULES[config.schedule](self._progress(), config.warmup, config.cooldown, config.final)
        first = position.step * config.accumulate
        batches = [self.source.batch(first + i) for i in range(config.accumulate)]
        position.loss = self._backward(batches)
        grad_norm = self._clip(position.loss)
        self._update(config.lr * factor)
        n_targets = sum(batch.n_targets for batch in batches)
        position.step += 1
        position.tokens += n_targets
        position.seconds = self._clock()
        return StepReport(
            step=position.step,
            progress=self._progress(),
            loss=position.loss,
            bits_per_byte=bits_per_byte(position.loss, sum(map(self._n_bytes, batches)) / n_targets),
            valid_loss=position.valid_loss,
            lr=config.lr * factor,
            grad_norm=grad_norm,
            tokens=position.tokens,
            tokens_per_second=n_targets / (time.perf_counter() - started),
            seconds=position.seconds,
        )

    def validate(self, log: MetricsLog | None, stop: StopSignal) -> None:
        """Score the held-out batches with the average or else the weights. A signal breaks it off, to be done later."""
        position = self.position
        with weights.swapped(self.model, self.average), _evaluating(self.model), _own_generator(self.device):
            total, n_targets, n_bytes = 0.0, 0, 0
            for batch in self.source.valid():
                if self._agree(stop.received):
                    return
                total += self._nats(self.ranks.own(batch))
                n_targets += batch.n_targets
                n_bytes += self._n_bytes(batch)
            if n_targets == 0 and self.config.patience is not None:
                raise ValueError(f"patience={self.config.patience} needs held-out batches; the source has none")
            position.validated = position.step
            if n_targets:
                self._judge(self.ranks.total(total) / n_targets)
                position.valid_bytes = n_bytes / n_targets
        position.seconds = self._clock()
        if log is not None and n_targets:
            log.write(position.as_line())

    def export(self) -> TrainResult:
        """Write what `runnel.load` reads, and leave the model with these weights."""
        position, reason = self.position, self._reason_to_end()
        assert reason is not None and position.loss is not None
        chosen = self.best if self.best is not None else self.average
        if chosen is not None:
            weights.overwrite(dict(self.model.named_parameters()), chosen)
        learner = self.model
        if isinstance(learner, Model) and sharding.is_sharded(learner):
            learner = sharding.unsharded(learner)
        if self.ranks.is_first:
            self._write(learner)
        self.ranks.wait()
        valid_loss = position.valid_loss if self.best is None else position.best
        return TrainResult(
            folder=self.folder,
            step=position.step,
            tokens=position.tokens,
            seconds=position.seconds,
            loss=position.loss,
            valid_loss=valid_loss,
            valid_bits_per_byte=None if valid_loss is None else bits_per_byte(valid_loss, position.valid_bytes),
            stopped=reason,
        )

    def _write(self, learner: Learner) -> None:
        codec = getattr(self.source, "codec", None)
        if codec is not None:
            codec.save(self.folder)
        save_learner(learner, self.folder)

    # ---- checkpoints --------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Save a checkpoint, unless the last one already says the same. `Diverged` rather than save a bad number."""
        if self.saved == self.position:
            return
        tensors = self._tensors()
        bad = weights.first_bad(sharding.own(tensors))
        if bad is not None:
            raise Diverged(f"after step {self.position.step} {bad}; {self._last_good()}")
        facts = {"run": self.identity, "position": asdict(self.position)}
        same_step = self.saved is not None and self.saved.step == self.position.step
        previous = None if self.saved is None or same_step else self.saved.step
        if self.parts is not None:
            self.parts.save(checkpoint.Checkpoint(self.position.step, tensors, facts), previous)
        else:
            self._save_whole(checkpoint.Checkpoint(self.position.step, sharding.whole(tensors), facts), previous)
        self.saved = replace(self.position)
        self.saved_at = time.perf_counter()

    def _save_whole(self, whole: checkpoint.Checkpoint, previous: int | None) -> None:
        if self.ranks.is_first:
            checkpoint.save(self.folder, whole, previous)

    def settle(self) -> None:
        """Until the last checkpoint is on disk."""
        if self.parts is not None:
            self.parts.settle()

    def _restore(self) -> None:
        found = self.ranks.told(lambda: checkpoint.find(self.folder))
        if found is None:
            if (self.folder / "model.safetensors").exists():
                raise ValueError(f"{self.folder} must be new or hold a run; it holds a model without checkpoints")
            return
        check_same_run(found.facts["run"], self.identity, self.folder)
        tensors = checkpoint.read(found.path, self.model)
        weights.overwrite(weights.persistent(self.model), _part(tensors, "model/"))
        optim.load_named_state(self.optimizers, _part(tensors, "optimizer/"))
        if self.average is not None:
            weights.overwrite(self.average, _part(tensors, "average/"))
        self.best = _part(tensors, "best/") or None
        _set_generator(self.device, _part(tensors, "generator/"))
        self.position = Position(**found.facts["position"])
        self.saved = replace(self.position)

    def _tensors(self) -> dict[str, Tensor]:
        parts = {
            "model/": weights.persistent(self.model),
            "optimizer/": optim.named_state(self.optimizers),
            "average/": self.average or {},
            "best/": self.best or {},
            "generator/": _get_generator(self.device),
        }
        return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}

    def _last_good(self) -> str:
        if self.saved is None:
            return "there is no checkpoint yet"
        self.settle()
        return f"the last good checkpoint, of step {self.saved.step}, is in {self.folder}"

    # ---- parts of a step ----------------------------------------------------------------------------------------

    def _backward(self, batches: Sequence[Batch]) -> float:
        """Fill in the gradient of the mean over all targets of the step, however they lie in micro-batches."""
        n_targets = sum(batch.n_targets for batch in batches)
        if n_targets == 0:
            raise ValueError(f"step {self.position.step + 1} must have at least one target; its batches have none")
        self.model.train()
        self.model.zero_grad()
        total = 0.0
        for share in map(self.ranks.own, batches):
            total += self._learn(share, n_targets)
        self.ranks.sum_gradients(self.model)
        return self.ranks.total(total)

    def _learn(self, share: Share, n_targets: int) -> float:
        """Add a share's part to the gradient, and return its part of the mean loss."""
        if self.config.chunk is not None:
            assert isinstance(self.model, Model)
            with self._autocast():
                return over_time.backward(self.model, _to(share.batch, self.device), self.config.chunk, 1 / n_targets)
        with self._autocast():
            loss = self._loss(share) * (share.n_targets / n_targets)
        loss.backward()
        return loss.item()

    def _loss(self, share: Share) -> Tensor:
        """Mean nats of a rank's targets; of any one where none counts, since all ranks call the model together."""
        batch = share.batch if share.batch.n_targets else replace(share.batch, targets=share.batch.targets.clamp(min=0))
        return self.loss(self.model, _to(batch, self.device))

    def _clip(self, loss: float) -> float:
        """Clip the gradient; its norm before. `Diverged` when that or the loss is not finite."""
        norms = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        norm = sharding.whole({"norm": norms})["norm"]
        if not (math.isfinite(loss) and bool(norm.isfinite())):
            raise Diverged(self._explain(loss, float(norm)))
        if self.config.clip is not None:
            clip_grads_with_norm_(self.model.parameters(), self.config.clip, norm)
        return float(norm)

    def _explain(self, loss: float, norm: float) -> str:
        """Names the first bad weight, or else the first bad gradient on the way back from the loss, its origin."""
        parameters = dict(self.model.named_parameters())
        bad_weight = weights.first_bad(parameters)
        gradients = {name: parameters[name].grad for name in reversed(parameters)}
        bad_gradient = weights.first_bad({name: grad for name, grad in gradients.items() if grad is not None})
        cause = bad_weight or (bad_gradient and f"the gradient of {bad_gradient}") or "every gradient is finite"
        return (
            f"step {self.position.step + 1} must have a finite loss and gradient; got loss {loss}, "
            f"gradient norm {norm}: {cause}; {self._last_good()}"
        )

    def _update(self, lr: float) -> None:
        optim.set_lr(self.optimizers, lr)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None and self.config.ema is not None:
            weights.update_average(self.average, self.model, self.config.ema, self.position.step)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        if self.config.precision == "float32":
            yield
            return
        with torch.autocast(self.device.type, torch.bfloat16):
            yield

    # ---- parts of a validation ----------------------------------------------------------------------------------

    def _nats(self, share: Share) -> float:
        """Total nats of a rank's share of a held-out batch."""
        with self._autocast():
            return float(self._loss(share)) * share.n_targets

    def _judge(self, loss: float) -> None:
        """Note a validation loss, and keep the weights that made the best one when the run may stop early."""
        position = self.position
        if not math.isfinite(loss):
            raise Diverged(f"after step {position.step} the validation loss is {loss}; {self._last_good()}")
        position.valid_loss = loss
        if position.best is not None and loss >= position.best:
            position.stale += 1
            return
        position.best, position.stale = loss, 0
        if self.config.patience is not None:
            self.best = weights.snapshot(self.model)

    def _validation_is_due(self) -> bool:
        position, every = self.position, self.config.valid_every
        if position.validated == position.step:
            return False
        return self._reason_to_end() is not None or (every is not None and position.step % every == 0)

    # ---- where the run is ---------------------------------------------------------------------------------------

    def _clock(self) -> float:
        """Seconds of training, the same on all ranks, since the schedule may follow them."""
        return self.ranks.largest(time.perf_counter() - self.began)

    def _agree(self, wanted: bool) -> bool:
        """Whether any rank wants it."""
        return bool(self.ranks.largest(float(wanted)))

    def _progress(self) -> float:
        """In [0, 1]: the middle of the step to be made, so that neither the first nor the last has a rate of zero."""
        if self.config.steps is not None:
            return min((self.position.step + 0.5) / self.config.steps, 1.0)
        assert self.config.budget is not None
        return min(self.position.seconds / self.config.budget, 1.0)

    def _reason_to_end(self) -> str | None:
        position, config = self.position, self.config
        if config.patience is not None and position.stale >= config.patience:
            return "patience"
        if config.steps is not None and position.step >= config.steps:
            return "steps"
        if config.budget is not None and position.seconds >= config.budget:
            return "budget"
        return None

    # ---- bytes --------------------------------------------------------------------------------------------------

    def _n_bytes(self, batch: Batch) -> int:
        """Bytes that the targets stand for; 0 when the source does not say."""
        if self.token_bytes is None:
            return 0
        targets = batch.targets.cpu()
        return int(self.token_bytes[targets[targets != IGNORE]].sum())


def _arrange(model: Learner, config: TrainConfig, ranks: Ranks) -> None:
    """What of the model stays in memory, and where."""
    if not (config.recompute or config.shard):
        return
    if not isinstance(model, Model):
        raise ValueError("recompute and shard are for models; a drafter is small")
    if config.recompute:
        sharding.recompute(model)
    if config.shard and ranks.devices is not None:
        used_in = torch.bfloat16 if config.shard_precision == "bfloat16" else None
        sharding.shard(model, ranks.devices, used_in, config.offload)


def _loss_of(objective: str, ranks: Ranks) -> Callable[[Learner, Batch], Tensor]:
    page = catalog.page("objectives", objective)
    if ranks.mesh.sequence > 1 and not getattr(page, "SLICED", False):
        raise ValueError(f"the objective {objective} reads whole rows: the mesh must have sequence=1; got {ranks.mesh}")
    return page.loss


def _check_vocabulary(model: Learner, source: Source) -> None:
    size = model.config.vocab_size
    if size is not None and size < source.vocab_size:
        raise ValueError(f"the model's vocab_size must be at least the source's {source.vocab_size}; got {size}")


def _token_bytes(source: Source) -> Tensor | None:
    """(V,) int64: how many bytes each id stands for; None when the source has no codec."""
    codec = getattr(source, "codec", None)
    return None if codec is None else torch.tensor([len(piece) for piece in codec.token_bytes])


def _to(batch: Batch, device: torch.device) -> Batch:
    segments = None if batch.segments is None else batch.segments.to(device)
    part = None if batch.part is None else batch.part.to(device)
    return Batch(batch.inputs.to(device), batch.targets.to(device), segments, part)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _own_generator(device: torch.device) -> AbstractContextManager[None]:
    """Leave PyTorch's generators as they were before the block."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def _get_generator(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_generator(device: torch.device, states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
