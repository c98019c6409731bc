"""A text read in two pieces: the second piece, of several tokens, must follow the state after the first."""

import torch
from _pair import IDS, JAMBA, MAMBA2, error, pair

for config, settings in {
    "MambaConfig": {},
    "FalconMambaConfig": {},
    "JambaConfig": JAMBA,
    "Mamba2Config": MAMBA2,
}.items():
    theirs, ours = pair(config, **settings)
    cache = "past_key_values" if config == "JambaConfig" else "cache_params"
    with torch.no_grad():
        whole = theirs(IDS, use_cache=False).logits[:, 16:]
        kept = {cache: theirs(IDS[:, :16], use_cache=True)[cache]}
        other = theirs(IDS[:, 16:], **kept, use_cache=True).logits
        _, state = ours(IDS[:, :16])
        print(f"{config}: transformers {error(other, whole)}, Runnel {error(ours(IDS[:, 16:], state)[0], whole)}")
