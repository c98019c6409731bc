"""How attention layers become recurrent ones: which weights of the one are weights of the other.

A page has the name of the mixer that it makes. It says with which options the mixer is made (`part`) and copies and
derives its weights (`transfer`). What is learned afterwards, and how, is the business of `runnel.objectives`.

What softmax attention has of its own (window, sinks, cap, scale of the scores, rotation where the mixer has none) ends
with it. An option that changes what the projections are, and that the mixer has no place for, is an error.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import catalog
from runnel.mixer import Mixer, RMSNorm
from runnel.mixers.attention import Attention
from runnel.mixers.attention import Config as AttentionConfig
from runnel.patterns import Part, parse_part

FOLDER = "conversions"
DROPPED = ("window", "sinks", "cap", "scale", "rope_base", "rope", "rotated")
SHAPES = ("heads", "head_dim", "kv_heads", "qk_norm", "norm_eps", "norm_offset")

SAME = ("rope_base", "rope", "rotated", "qk_norm", "norm_eps", "norm_offset", "bias", "out_bias")


class Conversion(ABC):
    """carries: options of attention, beyond its shapes, that the mixer has a place for."""

    carries: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def part(self, attention: Attention) -> Part:
        """The mixer in a pattern. ValueError where the attention's shapes do not fit it."""

    @abstractmethod
    def transfer(self, attention: Attention, made: Any) -> None:
        """Write the attention's weights into a freshly made mixer; what has no origin there stays as it is."""

    @property
    def target(self) -> str:
        return catalog.page_name(self)

    def check(self, attention: Attention) -> None:
        """ValueError naming an option of the attention that would be lost."""
        allowed = (*DROPPED, *SHAPES, *self.carries)
        for field in dataclasses.fields(AttentionConfig):
            value = getattr(attention.config, field.name)
            if field.name not in allowed and value != field.default:
                raise ValueError(f"{self.target} has no place for attention's {field.name}={value!r}")


def shapes(attention: Attention) -> dict[str, Any]:
    """Options of a mixer that divides heads as attention does."""
    return {"heads": attention.heads, "head_dim": attention.width, "kv_heads": attention.groups}


def same(attention: Attention, config: type[Any]) -> dict[str, Any]:
    """Options that a mixer shares with attention, where this one's are not the defaults. config: the mixer's Config."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    values = {name: getattr(attention.config, name) for name in SAME if name in defaults}
    return {name: value for name, value in values.items() if value != defaults[name]}


class Projections(NamedTuple):
    """What attention projects with; keys and values of a group are repeated, one for every query head.

    Where queries and keys are normalised per head, the learned scale of that norm is in them, its division is not.
    """

    q: Float[Tensor, "H K D"]
    k: Float[Tensor, "H K D"]
    v: Float[Tensor, "H K D"]
    out: Float[Tensor, "D HK"]

    @classmethod
    def of(cls, attention: Attention) -> Projections:
        q, k, v = per_head(attention, attention.qkv.weight.mT).mT.split(attention.heads)
        return cls(q, k, v, attention.out.weight)


def per_head(attention: Attention, rows: Float[Tensor, "*B R"]) -> Float[Tensor, "3*H *B K"]:
    """What belongs to queries, keys and values, of every query head."""
    sizes = (attention.heads, attention.groups, attention.groups)
    q, k, v = rows.unflatten(-1, (-1, attention.width)).movedim(-2, 0).split(sizes)
    k, v = [x.repeat_interleave(attention.heads // attention.groups, dim=0) for x in (k, v)]
    return torch.cat([_scaled(q, attention.q_norm), _scaled(k, attention.k_norm), v])


def _scaled(channels: Float[Tensor, "*B K"], norm: nn.Module) -> Float[Tensor, "*B K"]:
    """With the learned scale of the norm after them, where there is one."""
    return channels * (norm.offset + norm.weight) if isinstance(norm, RMSNorm) else channels


def open_filters(weight: Float[Tensor, "C W"]) -> None:
    """Make a causal convolution the identity: only the token itself counts."""
    weight.zero_()
    weight[:, -1] = 1


def make(text: str) -> Conversion:
    """A conversion by the name of its mixer, with options: `liger(window=32)`."""
    name = text.partition("(")[0].strip()
    known = catalog.names(FOLDER)
    if name not in known:
        raise ValueError(
            f"attention cannot become {name!r}: no conversion of that name has its projections"
            f"{catalog.suggest(name, known)}"
        )
    page, part = catalog.page(FOLDER, name), parse_part(text, FOLDER)
    conversion: Conversion = catalog.class_in(page, Conversion)(part.config(page))
    return conversion


@torch.no_grad()
def converted(conversion: Conversion, attention: Attention, made: Mixer) -> None:
    """Transfer, in the dtype of the attention and on its device."""
    made.to(attention.out.weight)
    conversion.transfer(attention, made)
