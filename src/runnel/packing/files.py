"""Packed models on disk: packed.json says what there is, weights.bin holds the numbers and is mapped, not read.

Every tensor begins at a multiple of 64 bytes. Loading builds no model: the programs were recorded when it was packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runnel import patterns
from runnel.head import Head
from runnel.model import Model, ModelConfig, layers_of
from runnel.native.packed import PackedMatrix, nbytes
from runnel.packing.builder import Spec
from runnel.packing.packed_model import PackedModel, TorchLayer
from runnel.packing.segment import Segment, form_of
from runnel.state import Memory, map_memory
from runnel.storage import read_json, write_atomically, write_json

FORMAT, VERSION = "runnel.packed", 3
ALIGNMENT = 64


def save_packed(packed: PackedModel, folder: str | Path) -> None:
    """Write packed.json and weights.bin, each atomically."""
    folder, tensors = Path(folder), _Tensors()
    parts = [_describe(part, tensors) for part in packed.parts]
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": packed.config.to_dict(),
        "semantics": packed.semantics,
        "weights": packed.weights,
        "fingerprint": packed.fingerprint(),
        "fallbacks": packed.fallbacks,
        "parts": parts,
        "head": _describe(packed.head, tensors),
        "embedding": None if packed.embedding is None else tensors.add(packed.embedding),
        "positions": None if packed.positions is None else tensors.add(packed.positions.weight),
        "tensors": tensors.index,
        "nbytes": tensors.end,
    }
    write_atomically(folder / "weights.bin", tensors.write)
    write_json(folder / "packed.json", content)


def load_packed(folder: str | Path) -> PackedModel:
    """Read a packed model that `save_packed` wrote; its weights are mapped into memory.

    FileNotFoundError when it is not there; ValueError when it is damaged or foreign.
    """
    folder = Path(folder)
    content = read_json(folder / "packed.json")
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ValueError(f"{folder / 'packed.json'} does not describe a packed Runnel model")
    file = folder / "weights.bin"
    if not file.is_file() or file.stat().st_size != content["nbytes"]:
        raise ValueError(f"{file} is missing or damaged: it must have {content['nbytes']} bytes")
    data = torch.from_file(str(file), shared=False, size=content["nbytes"], dtype=torch.uint8)
    config = ModelConfig(**content["config"])
    with torch.device("meta"):
        shell = Model(config)
    if shell.semantics() != content["semantics"]:
        raise ValueError(
            f"{folder} was made for other versions of its mixers: {content['semantics']}; these are {shell.semantics()}"
        )
    zero = [map_memory(lambda leaf: torch.zeros_like(leaf, device="cpu"), m.init_state(1)) for m in shell.mixers]
    tensors = [_mapped(data, *entry) for entry in content["tensors"]]
    parts = [_part(entry, shell, tensors, zero) for entry in content["parts"]]
    head = _head(content["head"], shell, tensors)
    embedding, positions = [None if content.get(n) is None else tensors[content[n]] for n in ("embedding", "positions")]
    return PackedModel(
        config, content["weights"], parts, head, embedding, zero, content["fingerprint"], content["fallbacks"],
        content["semantics"], positions,
    )  # fmt: skip


class _Tensors:
    """Tensors of a file in the making. index: for each its dtype, shape and offset."""

    def __init__(self) -> None:
        self.index: list[tuple[str, list[int], int]] = []
        self.end = 0
        self._tensors: list[Tensor] = []

    def add(self, tensor: Tensor) -> int:
        offset = -(-self.end // ALIGNMENT) * ALIGNMENT
        self.index.append((str(tensor.dtype).removeprefix("torch."), list(tensor.shape), offset))
        self._tensors.append(tensor.detach().contiguous())
        self.end = offset + tensor.numel() * tensor.element_size()
        return len(self.index) - 1

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            for (_, _, offset), tensor in zip(self.index, self._tensors, strict=True):
                file.write(b"\0" * (offset - file.tell()))
                file.write(tensor.view(-1).view(torch.uint8).numpy().data)


def _describe(part: Segment | TorchLayer | Head, tensors: _Tensors) -> dict[str, Any]:
    if isinstance(part, Segment):
        return {
            "layers": [part.layers.start, part.layers.stop],
            "spec": asdict(part.spec),
            "constants": [tensors.add(constant) for constant in part.constants],
            "matrices": [tensors.add(matrix.data) for matrix in part.matrices],
        }
    module = part.layer if isinstance(part, TorchLayer) else part
    state = {name: tensors.add(tensor) for name, tensor in module.state_dict().items()}
    return {
        "layers": [part.layers.start, part.layers.stop] if isinstance(part, TorchLayer) else [0, 0],
        "module": state,
    }


def _mapped(data: Tensor, dtype: str, shape: Sequence[int], offset: int) -> Tensor:
    kind = getattr(torch, dtype)
    count = torch.Size(shape).numel()
    return data[offset : offset + count * kind.itemsize].view(kind).view(shape)


def _part(entry: dict[str, Any], shell: Model, tensors: list[Tensor], zero: list[Memory]) -> Segment | TorchLayer:
    if "spec" in entry:
        return _segment(entry, tensors, zero)
    index, config = entry["layers"][0], shell.config
    layer = shell.layers[index]
    if any(buffer.is_meta for buffer in layer.buffers()):  # some that no file holds
        specs = patterns.parse(config.pattern, config.channel, config.n_layers)
        layer = layers_of(specs[: index + 1], config.d_model, config.frame, config.vocab_size is not None)[index]
    return TorchLayer(index, _filled(layer, entry, tensors))


def _head(entry: dict[str, Any], shell: Model, tensors: list[Tensor]) -> Segment | Head:
    return _segment(entry, tensors, []) if "spec" in entry else _filled(shell.head, entry, tensors)


def _segment(entry: dict[str, Any], tensors: list[Tensor], zero: list[Memory]) -> Segment:
    spec = Spec(**entry["spec"])
    layers = range(*entry["layers"])
    matrices = [
        PackedMatrix(kind, outputs, inputs, _checked(tensors[number], nbytes(kind, outputs, inputs)))
        for (kind, outputs, inputs), number in zip(spec.matrices, entry["matrices"], strict=True)
    ]
    own = [zero[i] for i in layers]
    return Segment(spec, layers, [tensors[number] for number in entry["constants"]], matrices, form_of(spec, own))


def _checked(data: Tensor, size: int) -> Tensor:
    if data.numel() != size:
        raise ValueError(f"a packed matrix must have {size} bytes; got {data.numel()}")
    return data


def _filled(module: Any, entry: dict[str, Any], tensors: list[Tensor]) -> Any:
    """A module with the tensors of a file."""
    state = {name: tensors[number].clone() for name, number in entry["module"].items()}
    assert isinstance(module, nn.Module)
    module.load_state_dict(state, assign=True)
    return module.requires_grad_(False)
