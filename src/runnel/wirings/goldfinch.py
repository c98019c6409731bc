"""GoldFinch: layers of RWKV-6 below, and above them attention that remembers a small key and the token for all layers.

Paper: "GoldFinch: High Performance RWKV/Transformer Hybrid with Linear Pre-Fill and Extreme KV-Cache Compression"
(2024, 2407.12077): two thirds of the layers are recurrent, one third `gold`; every one is followed by channel mixing.

It stands in a pattern once, with as many layers as the model is to have: "goldfinch(recurrent=8, gold=4)".

Deviates: the recurrent layers are RWKV-6 as published, without the changes of Finch-C2 (keys times 1 - w, a second
value, no gate).
"""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "GoldFinch: High Performance RWKV/Transformer Hybrid with Linear Pre-Fill and Extreme KV-Cache Compression"
PAPERS = {TITLE: "2407.12077"}


@dataclass(frozen=True)
class Config:
    """recurrent, gold >= 1: layers of each; compression: of the keys that are remembered."""

    recurrent: int = 2
    gold: int = 1
    compression: int = 16

    def __post_init__(self) -> None:
        if min(self.recurrent, self.gold) < 1:
            raise ValueError(f"goldfinch needs recurrent and gold layers, >= 1; got {self.recurrent}, {self.gold}")


def pattern(config: Config) -> str:
    upper = f"gold(compression={config.compression})"
    return f"(rwkv6+none, channel_mix+none)*{config.recurrent}, ({upper}+none, channel_mix+none)*{config.gold}"
