"""Export to GGUF, the files of llama.cpp: the families that it runs as they are (llama, mistral, qwen, mamba).

    runnel.interop.gguf.write(model, "model.gguf", like="folder")

Numbers stay as they are (float32, float16 or bfloat16; what llama.cpp wants in float32 is written so); its own tools
quantise a file. Two things are not as in a folder of transformers: pairs of a rotated head stand side by side
in llama's queries and keys, and Mamba's A is stored as it is used, -exp(A_log). Falcon Mamba's norms of dt, B and C
have the epsilon of its other norms there, whatever its config.json says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runnel import codecs
from runnel.codecs import Codec
from runnel.interop import described, parts, theirs_of
from runnel.model import Model, load
from runnel.storage import write_atomically

NEVER = 2**20
"""The context of a model that has no longest text."""


@dataclass(frozen=True)
class Arch:
    """name: llama.cpp's. settings(writer, theirs) writes its fields; side_by_side: pairs of a rotated head are."""

    name: str
    settings: Callable[[Any, Mapping[str, Any]], None]
    side_by_side: bool = False


def write(model: Model, file: str | Path, like: str | Path, codec: Codec | None = None) -> None:
    """Write a model as one GGUF file. like: a folder in the Hugging Face layout, or a run that was imported.

    codec: its tokenizer, where it is byte-level; without one the file has a vocabulary of numbers only.
    ValueError where llama.cpp has no form of it.
    """
    import gguf

    theirs = described(model, like)
    arch = _arch(theirs)
    names = gguf.get_tensor_name_map(_number(gguf, arch.name), theirs["num_hidden_layers"])

    def save(target: Path) -> None:
        writer = gguf.GGUFWriter(target, arch.name)
        writer.add_name(Path(file).stem)
        arch.settings(writer, theirs)
        _write_vocabulary(writer, theirs, codec)
        for name, tensor in _tensors(model, theirs, arch):
            own = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if own is None:
                raise ValueError(f"llama.cpp's {arch.name} has no tensor for {name}")
            writer.add_tensor(_suffixed(own), *_numbers(gguf, own, tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    write_atomically(Path(file), save)


def write_run(run: str | Path, file: str | Path) -> None:
    """Write a run that was imported, with the weights of today and its tokenizer."""
    model = load(run)
    write(model, file, run, codecs.load(run) if (Path(run) / "codec.json").is_file() else None)


def _arch(theirs: Mapping[str, Any]) -> Arch:
    kind = theirs["model_type"]
    if kind not in ARCHES:
        raise ValueError(f"GGUF files can be written of {', '.join(sorted(ARCHES))}; got {kind}")
    return ARCHES[kind]


def _number(gguf: Any, name: str) -> Any:
    return next(number for number, own in gguf.MODEL_ARCH_NAMES.items() if own == name)


# ---- fields ---------------------------------------------------------------------------------------------------------


def _llama(writer: Any, theirs: Mapping[str, Any]) -> None:
    if any(parts.windows(theirs)):
        raise ValueError("llama.cpp's llama has no windows: this model would read other texts than it was made for")
    _attention(writer, theirs)


def _qwen(writer: Any, theirs: Mapping[str, Any]) -> None:
    if theirs.get("attention_bias"):
        raise ValueError("llama.cpp's qwen3 has no biases of attention: this model has them")
    if any(parts.windows(theirs, parts.late_windows(theirs))):
        raise ValueError("llama.cpp's qwen has no windows: this model would read other texts than it was made for")
    _attention(writer, theirs)


def _attention(writer: Any, theirs: Mapping[str, Any]) -> None:
    width, rotated = parts.head_width(theirs), parts.rotation(theirs)
    writer.add_context_length(theirs["max_position_embeddings"])
    writer.add_embedding_length(theirs["hidden_size"])
    writer.add_block_count(theirs["num_hidden_layers"])
    writer.add_feed_forward_length(theirs["intermediate_size"])
    writer.add_head_count(theirs["num_attention_heads"])
    writer.add_head_count_kv(parts.groups(theirs))
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(theirs["rms_norm_eps"])
    writer.add_rope_dimension_count(rotated["rotated"] or width)
    writer.add_rope_freq_base(rotated["rope_base"])
    _stretched(writer, rotated["rope"])


def _stretched(writer: Any, rope: Mapping[str, Any] | None) -> None:
    import gguf

    if rope is None:
        return
    plain = {"fast": 32.0, "slow": 1.0}
    other = [name for name in ("attention", "whole", *plain) if name in rope and rope[name] != plain.get(name)]
    if rope["kind"] not in ("linear", "yarn") or other:
        found = " with ".join([rope["kind"], *other])
        raise ValueError(f"GGUF files can hold rates stretched by linear or plain yarn; got {found}")
    writer.add_rope_scaling_type(gguf.RopeScalingType(rope["kind"]))
    writer.add_rope_scaling_factor(rope["factor"])
    if rope["kind"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["context"])


def _mamba(writer: Any, theirs: Mapping[str, Any]) -> None:
    if theirs["use_bias"] or not theirs["use_conv_bias"]:
        raise ValueError("llama.cpp's mamba has no biases but that of its convolution, which it needs")
    width, rank = theirs["hidden_size"], theirs["time_step_rank"]
    writer.add_context_length(NEVER)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(theirs["num_hidden_layers"])
    writer.add_ssm_conv_kernel(theirs["conv_kernel"])
    writer.add_ssm_inner_size(int(theirs["expand"] * width))
    writer.add_ssm_state_size(theirs["state_size"])
    writer.add_ssm_time_step_rank(-(-width // 16) if rank == "auto" else rank)
    writer.add_layer_norm_rms_eps(theirs["layer_norm_epsilon"])
    writer.add_ssm_dt_b_c_rms(theirs["model_type"] == "falcon_mamba")


ARCHES = {
    "llama": Arch("llama", _llama, side_by_side=True),
    "mistral": Arch("llama", _llama, side_by_side=True),
    "qwen2": Arch("qwen2", _qwen),
    "qwen3": Arch("qwen3", _qwen),
    "mamba": Arch("mamba", _mamba),
    "falcon_mamba": Arch("mamba", _mamba),
}


def _write_vocabulary(writer: Any, theirs: Mapping[str, Any], codec: Codec | None) -> None:
    import gguf

    size = theirs["vocab_size"]
    writer.add_vocab_size(size)
    model = getattr(codec, "model", None)
    if model is None or model.get("type") != "BPE" or model.get("byte_fallback"):
        writer.add_tokenizer_model("none")
        return
    special: dict[int, str] = codec.special  # type: ignore[union-attr]
    tokens = {**{token: text for text, token in model["vocab"].items()}, **special}
    kinds = [
        gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL if i in tokens else gguf.TokenType.UNUSED
        for i in range(size)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokens.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    if getattr(codec, "eos", None) is not None:
        writer.add_eos_token_id(codec.eos)  # type: ignore[union-attr]


# ---- tensors --------------------------------------------------------------------------------------------------------


def _tensors(model: Model, theirs: Mapping[str, Any], arch: Arch) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in theirs_of(model, theirs):
        if name.endswith("A_log"):
            tensor = -tensor.float().exp()
        elif name.endswith("conv1d.weight"):
            tensor = tensor.squeeze(1)
        elif arch.side_by_side and ".q_proj." in name:
            tensor = _side_by_side(tensor, theirs["num_attention_heads"])
        elif arch.side_by_side and ".k_proj." in name:
            tensor = _side_by_side(tensor, parts.groups(theirs))
        yield name, tensor


def _side_by_side(tensor: Tensor, heads: int) -> Tensor:
    """Rows (first half, second half) of every head become pairs."""
    return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _suffixed(name: str) -> str:
    """Mamba's A and D have no suffix."""
    return name.removesuffix(".weight") if name.endswith((".ssm_a.weight", ".ssm_d.weight")) else name


def _numbers(gguf: Any, name: str, tensor: Tensor) -> tuple[Any, ...]:
    """Arguments of the writer: an array, and for bfloat16 how it is to be read."""
    tensor = tensor.detach().cpu().contiguous()
    wide = tensor.dim() == 1 or any(part in name for part in ("ssm_a", "ssm_conv1d", "ssm_x", "ssm_dt", "ssm_d"))
    if tensor.dtype == torch.bfloat16 and not wide:
        shape = tuple(tensor.shape)
        return tensor.view(torch.uint8).numpy(), (*shape[:-1], 2 * shape[-1]), gguf.GGMLQuantizationType.BF16
    narrow = tensor.dtype == torch.float16 and not wide
    return ((tensor if narrow else tensor.float()).numpy(),)
