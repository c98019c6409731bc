"""Pupil: a model that begins as a teacher with some of its attention layers replaced, and learns from the teacher.

It is a Model, and is saved as one: the teacher is no part of it. Only the replaced mixers are trained; embeddings,
norms, channel blocks, head and the layers that are kept stay the teacher's to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel import patterns
from runnel.conversions import Conversion, converted
from runnel.lineage import Lineage
from runnel.mixers.attention import Attention
from runnel.model import Model, ModelConfig
from runnel.types import Batch


class Lesson(NamedTuple):
    """What a layer of the teacher read and wrote."""

    layer: int
    x: Float[Tensor, "B T D"]
    y: Float[Tensor, "B T D"]
    lineage: Lineage


class Pupil(Model):
    """teacher: is not saved, gets no gradient. replaced: the layers whose mixers are new."""

    teacher: Model

    def __init__(self, config: ModelConfig, teacher: Model, replaced: Sequence[int]) -> None:
        super().__init__(config)
        self.__dict__["teacher"] = teacher  # not as a submodule: its weights are not those of the pupil
        self.replaced = tuple(replaced)

    def lessons(self, batch: Batch) -> list[Lesson]:
        """What the teacher's mixers do with a batch, for every layer that is replaced here."""
        found: list[Lesson] = []

        def keep(layer: int) -> Any:
            return lambda _, given, made: found.append(Lesson(layer, given[0], made[0], given[2]))

        hooks = [self.teacher.mixers[i].register_forward_hook(keep(i)) for i in self.replaced]
        try:
            with torch.no_grad():
                self.teacher.features(batch.inputs, lineage=batch.lineage)
        finally:
            for hook in hooks:
                hook.remove()
        return found


def pupil_of(model: Any, objective: str) -> Pupil:
    """The model, if it is one that has a teacher."""
    if not isinstance(model, Pupil):
        raise ValueError(f"the objective {objective} needs a model with a teacher: `runnel convert` makes one")
    return model


def begin(teacher: Model, conversion: Conversion, keep: Fraction, seed: int = 0) -> Pupil:
    """The teacher with its attention layers converted, but for the share `keep` of them; see `kept`.

    seed: of the weights that have no origin in the teacher. ValueError where nothing is to be converted.
    """
    specs = patterns.parse(teacher.config.pattern, teacher.config.channel, teacher.config.n_layers)
    attention = [i for i, mixer in enumerate(teacher.mixers) if isinstance(mixer, Attention)]
    if not attention:
        raise ValueError(f"the model must have attention layers; got {teacher.config.pattern!r}")
    staying = {attention[i] for i in kept(len(attention), keep)}
    replaced = [i for i in attention if i not in staying]
    if not replaced:
        raise ValueError(f"keep={keep} of {len(attention)} attention layers leaves none to convert")
    for i in replaced:
        source = attention_of(teacher, i)
        conversion.check(source)
        specs[i] = replace(specs[i], mixer=conversion.part(source))
    config = replace(teacher.config, pattern=written(specs), n_layers=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pupil = Pupil(config, teacher, replaced)
    _inherit(pupil, teacher)
    for i in replaced:
        converted(conversion, attention_of(teacher, i), pupil.mixers[i])
    return pupil


def kept(layers: int, share: Fraction) -> list[int]:
    """Which of so many attention layers stay: k = round(share * layers), the last layer of each of k equal runs."""
    if not 0 <= share <= 1:
        raise ValueError(f"keep must be a share in [0, 1]; got {share}")
    count = math.floor(share * layers + Fraction(1, 2))
    return [math.ceil((i + 1) * Fraction(layers, count)) - 1 for i in range(count)]


def attention_of(model: Model, layer: int) -> Attention:
    mixer = model.mixers[layer]
    assert isinstance(mixer, Attention)
    return mixer


def written(specs: Sequence[patterns.Layer]) -> str:
    """Layers as a pattern."""
    return ", ".join(_layer(spec) for spec in specs)


def _layer(spec: patterns.Layer) -> str:
    ahead = "" if spec.ahead is None else f"{_part(spec.ahead)} > "
    mixers = ahead + " & ".join(_part(part) for part in (spec.mixer, *spec.beside))
    return f"{mixers}+{'none' if spec.block is None else _part(spec.block)}"


def _part(part: patterns.Part) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in part.options.items())
    return f"{part.name}({options})" if options else part.name


@torch.no_grad()
def _inherit(pupil: Pupil, teacher: Model) -> None:
    """All weights but those of the replaced mixers, which alone are trained."""
    own = tuple(f"layers.{i}.mixer." for i in pupil.replaced)
    theirs = dict(teacher.named_parameters())
    for name, parameter in pupil.named_parameters():
        parameter.requires_grad_(name.startswith(own))
        if not name.startswith(own):
            parameter.data = theirs[name].detach().clone()
    pupil.load_state_dict(dict(teacher.named_buffers()), strict=False)
    if pupil.config.frame.tied:
        pupil.tie()
