"""What a model does inside: maps of who reads whom."""

from runnel.probe.implicit_attention import TokenMap, implicit_attention, influence

__all__ = ["TokenMap", "implicit_attention", "influence"]
