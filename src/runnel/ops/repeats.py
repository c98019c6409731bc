"""Repeats: what followed, earlier in a text, on what stands at its end now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def followers(text: Sequence[int], longest: int) -> dict[int, int]:
    """For every token that stood right after an earlier occurrence of a suffix of the text: the length of the longest
    such suffix, at least 1 and at most `longest`.
    """
    tokens, suffix = np.array(text), text[::-1][:longest]
    ends = np.arange(len(text) - 1)  # where the earlier occurrence ends
    found: dict[int, int] = {}
    for length in range(1, len(suffix) + 1):
        ends = ends[ends >= length - 1]
        ends = ends[tokens[ends - (length - 1)] == suffix[length - 1]]
        if not len(ends):
            break
        found.update(dict.fromkeys(np.unique(tokens[ends + 1]).tolist(), length))
    return found


def reference(text: Sequence[int], longest: int) -> dict[int, int]:
    """Every suffix at every place."""
    found: dict[int, int] = {}
    for length in range(1, min(longest, len(text)) + 1):
        for end in range(length, len(text)):
            if list(text[end - length : end]) == list(text[len(text) - length :]):
                found[text[end]] = length
    return found
