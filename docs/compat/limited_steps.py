"""Mamba-2 with limits of its step size: token by token must be the whole text."""

import torch
from _pair import IDS, MAMBA2, error, pair

theirs, ours = pair("Mamba2Config", **MAMBA2, time_step_limit=(0.01, 0.05))
with torch.no_grad():
    whole = theirs(IDS, use_cache=False).logits
    read = theirs(IDS[:, :8], use_cache=True)
    others, (_, state), own = [], ours(IDS[:, :8]), []
    for i in range(8, 24):
        read = theirs(IDS[:, i : i + 1], cache_params=read.cache_params, use_cache=True)
        logits, state = ours(IDS[:, i : i + 1], state)
        others, own = [*others, read.logits], [*own, logits]
    print(f"transformers {error(torch.cat(others, 1), whole[:, 8:])}, Runnel {error(torch.cat(own, 1), whole[:, 8:])}")
