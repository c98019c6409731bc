"""A fitted forecaster as a folder: what it was told, its weights, and the rows that it goes on from.

    FOLDER/forecaster.json     settings, names of series, times, what the model is
           model.safetensors   weights, held-out errors
           data.safetensors    rows and covariates of the series, scales

Nothing is unpickled. Configs are written as the name of their page and their fields.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from runnel import catalog
from runnel.forecast import auto
from runnel.forecast.calendar import Calendar
from runnel.forecast.choices import head_of
from runnel.forecast.conformal import HeldOut
from runnel.forecast.forecaster import Fitted, Forecaster
from runnel.forecast.panel import Panel
from runnel.forecast.scaling import Scales
from runnel.forecasters import blend
from runnel.storage import read_json, read_tensors, write_json, write_tensors
from runnel.windows import FitConfig, FitReport, WindowShape, build

FORMAT = "runnel.forecaster"
GAPS = ["unique_id", "after", "before", "missing"]
SETTINGS = ("h", "freq", "head", "lookback", "season", "together", "valid", "seed", "intervals", "block", "paths")


def save(forecaster: Forecaster, folder: str | Path) -> None:
    """Write a fitted forecaster, each file atomically. ValueError when names of series are not texts or numbers."""
    fitted, folder = forecaster._fitted(), Path(folder)
    ids = fitted.panel.ids.tolist()
    if not all(isinstance(id, str | int | float) for id in [*ids, *fitted.panel.problems]):
        raise ValueError("names of series must be texts or numbers to be saved")
    content = {
        "format": FORMAT,
        "version": 1,
        "settings": {name: getattr(forecaster, name) for name in SETTINGS},
        "columns": asdict(forecaster.columns),
        "fitting": asdict(forecaster.fitting),
        "asked": _written(forecaster.config),
        "model": _written(fitted.model.made_from),
        "shape": asdict(fitted.model.shape),
        "report": asdict(fitted.report),
        "scores": getattr(fitted.model, "scores", []),
        "freq": fitted.panel.calendar.freq,
        "times": str(fitted.panel.starts_at.dtype),
        "ids": ids,
        "gaps": _whole(fitted.panel.gaps),
        "problems": [[id, text] for id, text in fitted.panel.problems.items()],
        "static": None if fitted.static is None else fitted.static.to_dict("split"),
    }
    write_tensors(
        folder / "model.safetensors", {**fitted.model.state_dict(), "held-out errors": fitted.held_out.rows}, {}
    )
    write_tensors(folder / "data.safetensors", _data(fitted), {})
    write_json(folder / "forecaster.json", content)


def load(folder: str | Path) -> Forecaster:
    """Read what `save` wrote. FileNotFoundError when it is not there; ValueError when it is damaged or foreign."""
    folder = Path(folder)
    content = read_json(folder / "forecaster.json")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{folder / 'forecaster.json'} does not describe a Runnel forecaster")
    tensors, _ = read_tensors(folder / "model.safetensors")
    data = {name: tensor.numpy() for name, tensor in read_tensors(folder / "data.safetensors")[0].items()}
    columns = content["columns"]
    names = {"id": columns["id"], "time": columns["time"], "target": columns["target"]}
    kinds = {kind: columns[kind] for kind in ("past", "future", "static")}
    fitting = FitConfig(**content["fitting"])
    forecaster = Forecaster(backbone=_read(content["asked"]), fit=fitting, **content["settings"], **names, **kinds)
    model = build(_read(content["model"]), WindowShape(**content["shape"]), head_of(content["settings"]["head"]))
    held_out = HeldOut(tensors.pop("held-out errors"))
    model.load_state_dict(tensors)
    model.eval()
    if isinstance(model, blend.Blend):
        model.scores = content["scores"]
    starts = data["starts_at"].astype(content["times"])
    gaps = pd.DataFrame(content["gaps"], columns=GAPS)
    gaps[GAPS[1:3]] = gaps[GAPS[1:3]].astype(content["times"])
    found = Panel(
        np.array(content["ids"]),
        Calendar(content["freq"]),
        starts,
        data["lengths"],
        data["values"],
        data["covariates"],
        dict(content["problems"]),
        gaps,
    )
    scales = Scales(*(data[name] for name in ("loc", "scale", "covariate_loc", "covariate_scale")))
    static = None if content["static"] is None else pd.DataFrame(**content["static"])
    forecaster.fitted = Fitted(model, found, scales, static, held_out, FitReport(**content["report"]))
    return forecaster


def _data(fitted: Fitted) -> dict[str, torch.Tensor]:
    found = fitted.panel
    arrays = {
        "starts_at": found.starts_at.astype(np.int64),
        "lengths": found.lengths,
        "values": found.values,
        "covariates": found.covariates,
        **{field.name: getattr(fitted.scales, field.name) for field in dataclasses.fields(Scales)},
    }
    return {name: torch.tensor(array) for name, array in arrays.items()}


def _whole(gaps: pd.DataFrame) -> list[list[Any]]:
    """Rows with their times as whole numbers."""
    rows = gaps.assign(**{name: gaps[name].astype(np.int64) for name in GAPS[1:3]})
    return [list(row) for row in zip(*[rows[name].tolist() for name in GAPS], strict=True)]


def _written(value: Any) -> Any:
    """A Config, or a value in one, as JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _written(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"page": type(value).__module__.removeprefix("runnel."), "class": type(value).__name__, "fields": fields}
    return [_written(item) for item in value] if isinstance(value, tuple | list) else value


def _read(value: Any) -> Any:
    """The inverse of `_written`: only dataclasses of forecasters, of `auto` and of fitting are made."""
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    if not isinstance(value, dict):
        return value
    page, made = value["page"], value["class"]
    if page == "forecast.auto":
        kind: Any = auto.Config
    elif page == "windows.fitting":
        kind = FitConfig
    else:
        module = catalog.page("forecasters", page.removeprefix("forecasters."))
        kind = {"Config": module.Config, "Member": blend.Member}[made]
    return kind(**{name: _read(item) for name, item in value["fields"].items()})
