"""A small random model by transformers, and the same one read by Runnel: `theirs, ours = pair("MambaConfig", ...)`."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import transformers

from runnel import Model, interop

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def pair(config: str, **settings: Any) -> tuple[Any, Model]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}
    made = getattr(transformers, config)(**sizes, **settings, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    theirs = transformers.AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, interop.load(folder)


def error(found: torch.Tensor, expected: torch.Tensor) -> str:
    """The largest difference, relative to the largest number."""
    return f"{float((found - expected).abs().max() / expected.abs().max()):.1e}"


IDS = torch.randint(0, 97, (1, 24), generator=torch.Generator().manual_seed(1))
MAMBA2 = {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16}
LLAMA = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
JAMBA = {
    **LLAMA, "mamba_d_state": 8, "num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
}  # fmt: skip
GEMMA = {**LLAMA, "num_key_value_heads": 1, "attention_window_size": 9, "block_types": ["recurrent", "attention"]}
