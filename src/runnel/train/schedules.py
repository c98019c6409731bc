"""Learning-rate schedules: the factor on the peak rate as a function of the progress of the run in [0, 1].

Progress is steps done over steps asked for, or seconds over the budget, so one schedule serves both kinds of run.

- `cosine`: linear warm-up, then half a cosine down to `final` (SGDR: Stochastic Gradient Descent with Warm Restarts,
  2016, 1608.03983, without the restarts).
- `wsd`: linear warm-up, a plateau, then a decay over the last `cooldown` of the run. The plateau is from MiniCPM
  (2024, 2404.06395); the shape of the decay, 1 - sqrt, is the best one found in Scaling Laws and Compute-Optimal
  Training Beyond Fixed Training Durations (2024, 2405.18392).
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float, float, float, float], float]


def cosine(progress: float, warmup: float, cooldown: float, final: float) -> float:
    """Warm-up over the first `warmup` of the run, then a cosine from 1 to `final`. `cooldown` plays no part."""
    if progress < warmup:
        return progress / warmup
    along = (progress - warmup) / (1 - warmup)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(along, 1.0)))


def wsd(progress: float, warmup: float, cooldown: float, final: float) -> float:
    """Warm-up over the first `warmup` of the run, 1 until the last `cooldown`, then 1 - sqrt down to `final`."""
    if progress < warmup:
        return progress / warmup
    if progress <= 1 - cooldown:
        return 1.0
    along = (progress - (1 - cooldown)) / cooldown
    return final + (1 - final) * (1 - math.sqrt(min(along, 1.0)))


SCHEDULES: dict[str, Schedule] = {"cosine": cosine, "wsd": wsd}
