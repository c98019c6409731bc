"""What a name means: a backbone by its page, a pattern of mixers or "auto"; a head by its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runnel import catalog, patterns
from runnel.forecast import auto
from runnel.forecasters import backbone as backbones
from runnel.head import Head


def page_config(backbone: Any) -> Any:
    """The Config that is meant by the name of a page, a Config, a pattern of mixers, or "auto"."""
    if not isinstance(backbone, str):
        return backbone
    if backbone == "auto":
        return auto.Config()
    if backbone in catalog.names("forecasters"):
        return catalog.default_config("forecasters", backbone)
    try:
        patterns.parse(backbone, "swiglu")
    except ValueError as error:
        known = ", ".join(catalog.names("forecasters"))
        raise ValueError(f"backbone must be one of {known}, or a pattern of mixers; {error}") from None
    return backbones.Config(backbone)


def name_of(config: Any) -> str:
    """What the column of forecasts is called: the page, or the pattern of a backbone."""
    if isinstance(config, backbones.Config):
        return config.pattern
    return "auto" if isinstance(config, auto.Config) else catalog.page_name(config)


def head_of(text: str | None) -> Callable[[int], Head] | None:
    """What makes the head that is meant by a page of `heads/` with options."""
    if text is None:
        return None
    part = patterns.parse_part(text, "heads")
    page = catalog.page("heads", part.name)
    config = part.config(page)
    if part.name in ("categorical", "self_terminating"):
        raise ValueError(f"a forecast needs a head of values; {part.name} is one of tokens")
    return lambda width: catalog.class_in(page, Head)(width, 1, config)
