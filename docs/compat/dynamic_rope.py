"""Texts longer than the context, rates by dynamic NTK scaling: a text must read alike whatever was read before it."""

import torch
from _pair import IDS, LLAMA, error, pair

rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}
theirs, ours = pair("LlamaConfig", **LLAMA, max_position_embeddings=8, rope_parameters=rope)
with torch.no_grad():
    steps, cache, before = [], None, theirs(IDS[:, :12]).logits
    for i in range(24):
        read = theirs(IDS[:, i : i + 1], past_key_values=cache, use_cache=True)
        steps, cache = [*steps, read.logits], read.past_key_values
    own, again = ours(IDS)[0], theirs(IDS[:, :12]).logits
    print(
        f"the same text again: transformers {error(again, before)}, Runnel {error(ours(IDS[:, :12])[0], own[:, :12])}"
    )
    print(f"whole against token by token: transformers {error(theirs(IDS).logits, torch.cat(steps, 1))}", end=", ")
    print(f"Runnel against transformers' steps {error(own, torch.cat(steps, 1))}")
