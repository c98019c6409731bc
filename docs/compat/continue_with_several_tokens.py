"""A text read in two pieces: the second piece, of several tokens, must follow the state after the first."""

import torch
from _pair import IDS, MAMBA2, error, pair

for config, settings in {"MambaConfig": {}, "FalconMambaConfig": {}, "Mamba2Config": MAMBA2}.items():
    theirs, ours = pair(config, **settings)
    with torch.no_grad():
        whole = theirs(IDS, use_cache=False).logits[:, 16:]
        cache = theirs(IDS[:, :16], use_cache=True).cache_params
        other = theirs(IDS[:, 16:], cache_params=cache, use_cache=True).logits
        _, state = ours(IDS[:, :16])
        print(f"{config}: transformers {error(other, whole)}, Runnel {error(ours(IDS[:, 16:], state)[0], whole)}")
