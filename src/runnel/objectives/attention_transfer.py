"""Attention transfer: every replaced layer learns, alone, to write what the teacher's layer writes for the same input.

Paper: "LoLCATs: On Low-Rank Linearizing of Large Language Models" (2024, 2410.10254), section 3.2.

    loss = mean over replaced layers l of  sum |y_l(x_l) - t_l(x_l)|^2 / sum |t_l(x_l)|^2                     (1)

x_l is what the teacher's layer l reads, so that the layers do not see each other's errors and all are taught by one
call of the teacher. Deviates: the error is divided by the size of the layer's output, so that layers count alike and 1
is what silence costs.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.model import Model
from runnel.ops.precision import widen
from runnel.trained.pupil import pupil_of
from runnel.types import Batch

PAPERS = {"LoLCATs: On Low-Rank Linearizing of Large Language Models": "2410.10254"}


def loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """The mean relative error of the replaced layers."""
    pupil, errors = pupil_of(model, "attention_transfer"), []
    for lesson in pupil.lessons(batch):
        mixer = pupil.mixers[lesson.layer]
        y, _ = mixer(lesson.x, mixer.init_state(len(lesson.x)), lesson.lineage)
        wanted = widen(lesson.y)
        errors.append((widen(y) - wanted).square().sum() / wanted.square().sum())
    return torch.stack(errors).mean()  # eq. (1)
