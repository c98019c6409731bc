"""A row that is padded on the left: its logits must be those of its own tokens alone."""

import torch
from _pair import GEMMA, IDS, error, pair

from runnel import Lineage

padded = torch.cat([torch.zeros(1, 7, dtype=torch.long), IDS], dim=1)
mask = torch.tensor([[0] * 7 + [1] * IDS.shape[1]])
for config, settings in {"RecurrentGemmaConfig": GEMMA}.items():
    theirs, ours = pair(config, **settings)
    with torch.no_grad():
        whole = theirs(IDS, use_cache=False).logits
        other = theirs(padded, attention_mask=mask, use_cache=False).logits[:, 7:]
        own = ours(padded, lineage=Lineage.padded(mask.bool()))[0][:, 7:]
        print(f"{config}: transformers {error(other, whole)}, Runnel {error(own, whole)}")
