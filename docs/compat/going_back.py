"""After a text and five more tokens, those five are given up and another follows, as in speculative decoding."""

import torch
from _pair import IDS, MAMBA2, error, pair

for config, settings in {"MambaConfig": {}, "FalconMambaConfig": {}, "Mamba2Config": MAMBA2}.items():
    theirs, ours = pair(config, **settings)
    with torch.no_grad():
        whole = theirs(torch.cat([IDS[:, :12], IDS[:, 20:21]], 1), use_cache=False).logits[:, -1:]
        cache = theirs(IDS[:, :12], use_cache=True).cache_params
        cache.activate_past_recording()
        theirs(IDS[:, 12:17], cache_params=cache, use_cache=True)
        cache.crop(-5)
        other = theirs(IDS[:, 20:21], cache_params=cache, use_cache=True).logits
        _, state = ours(IDS[:, :12])
        ours(IDS[:, 12:17], state)
        print(f"{config}: transformers {error(other, whole)}, Runnel {error(ours(IDS[:, 20:21], state)[0], whole)}")
