"""Word-level distillation: the student's law of the next token is drawn to the teacher's, wherever there is a token.

Papers: "Distilling the Knowledge in a Neural Network" (2015, 1503.02531); the end-to-end stage of "The Mamba in the
Llama: Distilling and Accelerating Hybrid Models" (2024, 2408.15237).

    loss = (1 / BT) sum over (b, t), v of p(v | x_<=t) (log p(v | x_<=t) - log q(v | x_<=t))                  (1)

p is the teacher's law, q the student's, both at temperature 1. Deviates: no term of the text's own next token, so that
what is measured is only how far the student is from its teacher.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div

from runnel.model import Model
from runnel.ops.precision import widen
from runnel.trained.pupil import pupil_of
from runnel.types import Batch

PAPERS = {"Distilling the Knowledge in a Neural Network": "1503.02531"}


def loss(model: Model, batch: Batch) -> Float[Tensor, ""]:
    """Nats per token; 0 where student and teacher agree."""
    teacher = pupil_of(model, "logits_kl").teacher
    with torch.no_grad():
        wanted, _ = teacher(batch.inputs, lineage=batch.lineage)
    found, _ = model(batch.inputs, lineage=batch.lineage)
    q, p = [widen(logits).log_softmax(-1).flatten(0, 1) for logits in (found, wanted)]
    return kl_div(q, p, reduction="batchmean", log_target=True)  # eq. (1)
