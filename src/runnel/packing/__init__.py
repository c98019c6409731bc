"""Packing: a model recorded once as native operations, for decoding without the interpreter. See `pack`."""

from runnel.packing.files import load_packed, save_packed
from runnel.packing.packed_model import PackedModel
from runnel.packing.packer import pack

__all__ = ["PackedModel", "load_packed", "pack", "save_packed"]
