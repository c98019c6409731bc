"""Coupled sequential glancing distillation: a block is learned with some of the answers in sight, less of them in time.

Paper: "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced Semi-Autoregressive Drafting and
Custom-Designed Decoding Tree" (2024, 2412.12639), section 3.2.

    n = GLANCE * share of places where the drafter's likeliest token is not the target's                        (1)
    at a random n of the places the pair (f_i, x_{i+1}) is replaced by (f_{i+k}, x_{i+k+1}), what it leads to       (2)
    loss = mean of SmoothL1(f'_{i+k}, f_{i+k}) + w (0.9 KL(p | q) - 0.1 log q(argmax p)) over the others           (3)

| code | paper |
|---|---|
| drafter.ahead | k |
| CLASSES, SOFT | w, 0.9 |
| GLANCE | lambda |

Both parts of a pair are replaced together: feature and token stay coupled. Deviates: lambda is fixed instead of
annealed over epochs (the share of wrong places falls by itself); replaced places are not scored, as in the Glancing
Transformer (2020, 2008.07905), since they hold their own answer; in validation nothing is replaced.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, smooth_l1_loss

from runnel.ops.precision import widen
from runnel.trained.pairs import Pairs
from runnel.types import Batch

PAPERS = {
    "Falcon: Faster and Parallel Inference of Large Language Models through Enhanced Semi-Autoregressive Drafting and "
    "Custom-Designed Decoding Tree": "2412.12639"
}
CLASSES, SOFT, GLANCE = 0.1, 0.9, 0.4


def loss(drafter: Pairs, batch: Batch) -> Float[Tensor, ""]:
    """Over all places of whole windows whose feature k places on is known."""
    features, tokens, nexts, answers, laws, kept = windows(drafter, batch)
    shown = torch.zeros_like(kept)
    if drafter.training:
        shown = glanced(drafter, features, tokens, laws, kept)
        features, tokens = torch.where(shown[..., None], nexts, features), torch.where(shown, answers, tokens)  # (2)
    kept = kept & ~shown
    guessed, following = drafter.foresee(features, tokens)
    regression = smooth_l1_loss(widen(following[kept]), widen(nexts[kept]))
    own, law = log_softmax(widen(drafter.law(guessed[kept])), -1), log_softmax(widen(laws[kept]), -1)
    soft = kl_div(own, law, reduction="batchmean", log_target=True)
    return regression + CLASSES * (SOFT * soft + (1 - SOFT) * cross_entropy(own, law.argmax(-1)))  # eq. (3)


def windows(drafter: Pairs, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rows cut into windows (N, W, ...) of whole blocks: features, tokens, those k places on, laws there, and where
    both ends are of one document. ValueError for rows that hold no window.
    """
    taught, ahead = drafter.taught(batch), drafter.ahead
    length = taught.tokens.shape[1] - ahead + 1  # pairs whose feature k places on is known
    size = min(length, drafter.window or length) // ahead * ahead
    answers = torch.cat([taught.tokens[:, ahead:], taught.laws[:, -1:].argmax(-1)], dim=1)[:, :length]
    if size < 1:
        raise ValueError(f"batch must hold rows of at least {2 * ahead} tokens; got {batch.inputs.shape[1]}")
    together = taught.kept.unfold(1, ahead, 1).all(-1)
    parts = [
        taught.features,
        taught.tokens,
        taught.nexts[:, ahead - 1 :],
        answers,
        taught.laws[:, ahead - 1 :],
        together,
    ]
    count = length // size
    features, tokens, nexts, later, laws, kept = [
        part[:, :length][:, -count * size :].unflatten(1, (count, size)).flatten(0, 1) for part in parts
    ]
    if not bool(kept.any()):
        raise ValueError("batch must hold documents that are longer than a block; it holds none")
    return features, tokens, nexts, later, laws, kept


@torch.no_grad()
def glanced(
    drafter: Pairs,
    features: Float[Tensor, "N W D"],
    tokens: Int[Tensor, "N W"],
    laws: Float[Tensor, "N W V"],
    kept: Bool[Tensor, "N W"],
) -> Bool[Tensor, "N W"]:
    """Eq. (1): which places are shown their answer; never all of them."""
    own = drafter.law(drafter.foresee(features, tokens)[0]).argmax(-1)
    wrong = float((own != laws.argmax(-1))[kept].double().mean())
    return kept & (torch.rand(kept.shape, device=kept.device) < GLANCE * wrong)
