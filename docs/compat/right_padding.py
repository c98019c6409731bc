"""A row that is padded on the right, and then goes on: its state must be that of its own tokens."""

import torch
from _pair import IDS, MAMBA2, error, pair

from runnel import Lineage

padded = torch.cat([IDS[:, :16], torch.zeros(1, 7, dtype=torch.long)], dim=1)
mask = torch.tensor([[1] * 16 + [0] * 7])
for config, settings in {"MambaConfig": {}, "FalconMambaConfig": {}, "Mamba2Config": MAMBA2}.items():
    theirs, ours = pair(config, **settings)
    with torch.no_grad():
        whole = theirs(IDS[:, :17], use_cache=False).logits[:, 16:]
        cache = theirs(padded, attention_mask=mask, use_cache=True).cache_params
        other = theirs(IDS[:, 16:17], cache_params=cache, use_cache=True).logits
        _, state = ours(padded, lineage=Lineage.padded(mask.bool()))
        print(f"{config}: transformers {error(other, whole)}, Runnel {error(ours(IDS[:, 16:17], state)[0], whole)}")
