"""What a model does inside: maps of who reads whom."""

from runnel.probe.implicit_attention import TokenMap, implicit_attention, influence
from runnel.probe.layers import LayerMap, draw, layer_maps

__all__ = ["LayerMap", "TokenMap", "draw", "implicit_attention", "influence", "layer_maps"]
