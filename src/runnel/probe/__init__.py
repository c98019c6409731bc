"""What a model does inside: maps of who reads whom, and what distance and depth do to them."""

from runnel.probe.implicit_attention import TokenMap, implicit_attention, influence
from runnel.probe.layers import LayerMap, draw, layer_maps
from runnel.probe.recency import influence_by_distance, likeness_by_depth

__all__ = [
    "LayerMap",
    "TokenMap",
    "draw",
    "implicit_attention",
    "influence",
    "influence_by_distance",
    "layer_maps",
    "likeness_by_depth",
]
