"""Model shapes with random weights, ours and the same in transformers and llama.cpp.

The weights are those of a freshly built model of transformers: written as a folder that `runnel.interop.load` reads,
and as a file in llama.cpp's format for every kind of weights. Where transformers is not installed, ours are random too.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import runnel
from runnel import interop
from runnel.bench.side_by_side import Way, installed

CONTEXT = 64
"""Tokens before what is measured."""


@dataclass(frozen=True)
class Shape:
    """kind: "mamba" or "llama". sizes: the keywords of transformers' configuration. ours: those of `runnel.build`."""

    kind: str
    sizes: dict[str, Any]
    ours: dict[str, Any]

    def quick(self) -> Shape:
        """Two layers and a small vocabulary, to see that a script runs."""
        return Shape(
            self.kind,
            {**self.sizes, "vocab_size": 512, "num_hidden_layers": 2},
            {**self.ours, "vocab_size": 512, "n_layers": 2},
        )


SHAPES = {
    "mamba-130m": Shape(
        "mamba",
        {"vocab_size": 50280, "hidden_size": 768, "num_hidden_layers": 24, "state_size": 16},
        {"pattern": "mamba", "vocab_size": 50280, "d_model": 768, "n_layers": 24, "channel": None},
    ),
    "llama-135m": Shape(
        "llama",
        {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        {
            "pattern": "attention(kv_heads=3, head_dim=64, qk_norm=False)", "vocab_size": 49152, "d_model": 576,
            "n_layers": 30,
        },
    ),
}  # fmt: skip


def text_of(length: int, vocab_size: int) -> Tensor:
    """Random tokens (1, T), always the same."""
    return torch.randint(0, vocab_size, (1, length), generator=torch.Generator().manual_seed(0))


# ---- transformers ---------------------------------------------------------------------------------------------------


def theirs(shape: Shape) -> Any:
    """The model of transformers in float32."""
    import transformers

    torch.manual_seed(0)
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    if shape.kind == "mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(**shape.sizes, **ends)).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape.sizes, **ends)).eval()


def ours(shape: Shape, peer: Any, folder: Path) -> runnel.Model:
    """Our model, with the weights of a peer where there is one."""
    if peer is None:
        return runnel.build(**shape.ours)
    peer.save_pretrained(folder)
    return interop.load(folder)


class _Ticks:
    """Notes the time whenever the logits of a token are there."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
        self.at.append(time.perf_counter())
        return scores


def writes(peer: Any, steps: int) -> Way:
    """Seconds a token of transformers' own decoding, after a prompt of CONTEXT tokens."""
    prompt = text_of(CONTEXT, peer.config.vocab_size)

    @torch.no_grad()
    def once() -> float:
        ticks = _Ticks()
        peer.generate(
            prompt, max_new_tokens=steps + 1, min_new_tokens=steps + 1, do_sample=False, logits_processor=[ticks]
        )
        return (ticks.at[-1] - ticks.at[0]) / (len(ticks.at) - 1)

    return once


def reads(peer: Any, length: int) -> Way:
    """Seconds of a prompt, without the head."""
    prompt = text_of(length, peer.config.vocab_size)

    @torch.no_grad()
    def once() -> float:
        begun = time.perf_counter()
        peer.base_model(prompt, use_cache=True)
        return time.perf_counter() - begun

    return once


# ---- llama.cpp ------------------------------------------------------------------------------------------------------


class LlamaCpp:
    """A model file in llama.cpp."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self._silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        given = llama_cpp.llama_model_default_params()
        given.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), given)
        if not self.model:
            raise ValueError(f"llama.cpp does not load {path}")
        sizes = llama_cpp.llama_context_default_params()
        sizes.n_ctx, sizes.n_batch, sizes.n_ubatch = 4096, 2048, 512
        sizes.n_threads = sizes.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, sizes)
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def read(self, tokens: list[int], at: int, all_logits: bool = False) -> np.ndarray:
        """Logits (V,) after the last of the tokens that begin at position `at`, computed for all of them or only it."""
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, at + i, 1, 0
            batch.logits[i] = all_logits or i == len(tokens) - 1
        failed = self.lib.llama_decode(self.context, batch)
        self.lib.llama_batch_free(batch)
        if failed:
            raise ValueError(f"llama.cpp fails on {len(tokens)} tokens: {failed}")
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, shape=(self.vocab_size,))

    def begin(self) -> int:
        """Forget everything and read the context. Returns a token to go on with."""
        self.lib.llama_memory_clear(self.memory, True)
        return int(self.read(text_of(CONTEXT, self.vocab_size)[0].tolist(), 0).argmax())

    def decodes(self, steps: int) -> Way:
        def once() -> float:
            token = self.begin()
            begun = time.perf_counter()
            for step in range(steps):
                token = int(self.read([token], CONTEXT + step).argmax())
            return (time.perf_counter() - begun) / steps

        return once

    def verifies(self, size: int, times: int) -> Way:
        """Logits after each of `size` tokens in one call."""

        def once() -> float:
            token = self.begin()
            begun = time.perf_counter()
            for call in range(times):
                self.read([token] * size, CONTEXT + call * size, all_logits=True)
            return (time.perf_counter() - begun) / times

        return once

    def reads(self, length: int) -> Way:
        tokens = text_of(length, self.vocab_size)[0].tolist()

        def once() -> float:
            self.lib.llama_memory_clear(self.memory, True)
            begun = time.perf_counter()
            self.read(tokens, 0)
            return time.perf_counter() - begun

        return once


def write_gguf(shape: Shape, peer: Any, kind: str, path: Path) -> Path:
    """The weights of a model of transformers as llama.cpp reads them. kind: "f32", "f16", "bf16" or "q8_0"."""
    import gguf

    writer = gguf.GGUFWriter(str(path), shape.kind)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(shape.sizes["vocab_size"])
    writer.add_embedding_length(shape.sizes["hidden_size"])
    writer.add_block_count(shape.sizes["num_hidden_layers"])
    config = peer.config
    if shape.kind == "mamba":
        writer.add_context_length(1 << 16)
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_conv_kernel(config.conv_kernel)
        writer.add_ssm_inner_size(config.intermediate_size)
        writer.add_ssm_state_size(config.state_size)
        writer.add_ssm_time_step_rank(int(config.time_step_rank))
        writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
        tensors = _mamba_tensors(peer)
    else:
        writer.add_context_length(config.max_position_embeddings)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_rope_freq_base(10000.0)
        tensors = _llama_tensors(peer)
    kinds = gguf.GGMLQuantizationType
    for name, tensor, rounded in tensors:
        values = tensor.detach().float().contiguous().numpy()
        if rounded and kind == "f16":
            writer.add_tensor(name, values.astype(np.float16))
        elif rounded and kind != "f32":
            to = {"q8_0": kinds.Q8_0, "bf16": kinds.BF16}[kind]
            writer.add_tensor(name, gguf.quants.quantize(values, to), raw_dtype=to)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


Named = Iterator[tuple[str, Tensor, bool]]
"""Name, tensor, and whether it is a matrix whose weights are rounded."""


def _mamba_tensors(peer: Any) -> Named:
    own = peer.state_dict()
    yield "token_embd.weight", own["backbone.embeddings.weight"], True
    yield "output_norm.weight", own["backbone.norm_f.weight"], False
    names = {
        "ssm_in.weight": "in_proj.weight", "ssm_conv1d.bias": "conv1d.bias", "ssm_x.weight": "x_proj.weight",
        "ssm_dt.weight": "dt_proj.weight", "ssm_dt.bias": "dt_proj.bias", "ssm_d": "D",
        "ssm_out.weight": "out_proj.weight",
    }  # fmt: skip
    for i in range(peer.config.num_hidden_layers):
        layer, block = f"backbone.layers.{i}", f"blk.{i}"
        mixer = f"{layer}.mixer"
        yield f"{block}.attn_norm.weight", own[f"{layer}.norm.weight"], False
        yield f"{block}.ssm_conv1d.weight", own[f"{mixer}.conv1d.weight"].squeeze(1), False
        yield f"{block}.ssm_a", -own[f"{mixer}.A_log"].exp(), False
        for name, source in names.items():  # 48 inputs of a time step are no multiple of the 32 of a block of bytes
            matrix = name.endswith("weight") and name != "ssm_dt.weight"
            yield f"{block}.{name}", own[f"{mixer}.{source}"], matrix


def _llama_tensors(peer: Any) -> Named:
    own, config = peer.state_dict(), peer.config
    yield "token_embd.weight", own["model.embed_tokens.weight"], True
    yield "output_norm.weight", own["model.norm.weight"], False
    names = {
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    for i in range(config.num_hidden_layers):
        layer, block = f"model.layers.{i}", f"blk.{i}"
        yield f"{block}.attn_norm.weight", own[f"{layer}.input_layernorm.weight"], False
        yield f"{block}.ffn_norm.weight", own[f"{layer}.post_attention_layernorm.weight"], False
        for name, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
            yield f"{block}.attn_{name}.weight", _interleaved(own[f"{layer}.self_attn.{name}_proj.weight"], heads), True
        for name, source in names.items():
            yield f"{block}.{name}.weight", own[f"{layer}.{source}.weight"], True


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rotary pairs next to each other, as llama.cpp turns them; transformers keeps them half a head apart."""
    outputs, inputs = weight.shape
    return weight.view(heads, 2, outputs // heads // 2, inputs).transpose(1, 2).reshape(outputs, inputs)


def peer_of(shape: Shape) -> Any:
    return theirs(shape) if installed("transformers") else None
