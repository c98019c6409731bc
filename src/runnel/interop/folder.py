"""Folders in the Hugging Face layout: config.json and safetensors, whole or in shards. Read with suspicion.

Files are mapped, as safetensors' own reader does it: what a model has as a file has it is not copied, and comes from
disk when it is used. So a file must stay as it is while a model is used; what Runnel writes takes a file's name and
leaves the old one to whoever reads it. Nothing in a folder is ever run; `.bin` files go through PyTorch's reader that
admits tensors only.
"""

from __future__ import annotations

import json
import math
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runnel.interop.mapped import Mapped, Stored, join
from runnel.storage import DTYPES, read_json, write_json, write_tensors

UNNAMED = {"mamba_ssm": {"d_model", "n_layer", "ssm_cfg"}}
"""Layouts whose config.json does not name its model_type, and the fields by which they are known."""
SHARD = 5 * 2**30
"""Most bytes of one file of tensors that `write` makes."""
MOST_HEADER = 100 * 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """config.json. ValueError when it needs code of its own or a quantisation: neither is supported."""
    config = read_json(folder / "config.json")
    if isinstance(config, dict) and "model_type" not in config:
        kinds = [kind for kind, fields in UNNAMED.items() if fields <= set(config)]
        config |= {"model_type": kinds[0]} if kinds else {}
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise ValueError(f"{folder / 'config.json'} must be an object with a model_type, as transformers writes it")
    if config.get("auto_map"):
        raise ValueError(
            f"{folder / 'config.json'} asks for code of its own (auto_map: {', '.join(config['auto_map'])}), which is "
            "never run; where the folder is a plain one of its model_type, take auto_map out"
        )
    quantised = config.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise ValueError(f"{folder} is quantised ({method}); only folders of plain tensors can be read")
    return config


@dataclass(frozen=True)
class Unpickled:
    """A tensor of a .bin file, mapped by PyTorch."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def read(self) -> Tensor:
        return self.tensor

    def release(self) -> None:
        """Its pages are PyTorch's."""


def joined(parts: Sequence[Stored | Unpickled]) -> Tensor:
    """Tensors one after the other along the first axis, as one."""
    stored = [part for part in parts if isinstance(part, Stored)]
    return join(stored) if len(stored) == len(parts) else torch.cat([part.read() for part in parts])


def open_tensors(folder: Path) -> dict[str, Stored | Unpickled]:
    """Every tensor of a folder by name, none of them read yet."""
    for name, reader in (("model.safetensors", _safetensors), ("pytorch_model.bin", _bin)):
        stem, _, suffix = name.partition(".")
        index = folder / f"{stem}.{suffix}.index.json"
        if (folder / name).is_file():
            return dict(reader(folder / name))
        if index.is_file():
            return {n: t for file in _shards(index) for n, t in reader(file)}
    raise FileNotFoundError(f"{folder} must hold model.safetensors, or its index and shards; there is neither")


def _shards(index: Path) -> list[Path]:
    content = read_json(index)
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise ValueError(f"{index} must have a weight_map of tensor names to file names")
    files = []
    for file in sorted(set(names.values())):
        if Path(file).name != file:
            raise ValueError(f"{index} names {file!r}: a shard must lie in the folder itself")
        if not (index.parent / file).is_file():
            lost = [name for name, own in names.items() if own == file]
            raise ValueError(f"{index.parent / file} is missing: it should hold {len(lost)} tensors, such as {lost[0]}")
        files.append(index.parent / file)
    return files


def _safetensors(file: Path) -> Iterator[tuple[str, Stored]]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, MOST_HEADER):
            raise ValueError(f"{file} is damaged or is not a safetensors file")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ValueError(f"{file} is damaged: its header is not JSON") from error
    mapped = Mapped(file)
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, _stored(mapped, name, entry, 8 + length, size)


def _stored(mapped: Mapped, name: str, entry: Any, data: int, size: int) -> Stored:
    file = mapped.file
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(int(n) for n in entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is damaged: its entry of {name} is {entry!r}") from error
    if dtype not in DTYPES:
        raise ValueError(f"{name} of {file} is {dtype}; supported are {', '.join(DTYPES)}")
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if min(shape, default=0) < 0 or begin < 0 or end - begin != wanted or data + end > size:
        raise ValueError(f"{file} is damaged: {name} must take {wanted} bytes; got [{begin}, {end}) of {size - data}")
    return Stored(mapped, DTYPES[dtype], shape, data + begin)


def _bin(file: Path) -> Iterator[tuple[str, Unpickled]]:
    warnings.warn(f"{file} is a pickle, read for tensors only; safetensors files are safer", stacklevel=2)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # the reader raises many kinds
        raise ValueError(f"{file} cannot be read as tensors only: {str(error).splitlines()[0]}") from error
    for name, tensor in content.items():
        if isinstance(tensor, Tensor):
            yield name, Unpickled(tensor)


def write(folder: Path, config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]], shard: int = SHARD) -> None:
    """Write config.json and tensors, in shards of at most `shard` bytes (a larger tensor makes a shard of its own)."""
    shards: list[dict[str, Tensor]] = [{}]
    filled = total = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and filled + size > shard:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled, total = filled + size, total + size
    if len(shards) == 1:
        write_tensors(folder / "model.safetensors", shards[0], {"format": "pt"})
    else:
        files = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
        for file, own in zip(files, shards, strict=True):
            write_tensors(folder / file, own, {"format": "pt"})
        where = {name: file for file, own in zip(files, shards, strict=True) for name in own}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        write_json(folder / "model.safetensors.index.json", index)
    unnamed = config.get("model_type") in UNNAMED
    write_json(folder / "config.json", {k: v for k, v in config.items() if not (unnamed and k == "model_type")})
