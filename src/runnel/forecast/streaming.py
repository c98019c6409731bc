"""Streaming: forecasts that go on with every new row, from a state of constant size.

    state = f.begin()                        # after the rows of the fit
    state = f.update(state, rows)            # a new value of every series, or a frame of them; the old one stays valid
    f.forecast(state, level=[90])

The state is that of the backbone's mixers after all rows so far, so a forecast after an update is the one that reading
the whole history anew would give. That needs a backbone over values whose window is not normalised by what is in it:
backbone.Config(pattern=..., embed="value", norm="none"), without covariates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from runnel.forecast import panel, scaling
from runnel.forecast.decoding import Direct, Paths, drawn, shared_noise
from runnel.forecast.panel import Panel
from runnel.forecasters.backbone import Backbone
from runnel.lineage import Lineage
from runnel.state import Memory, take_memory
from runnel.windows import Law

if TYPE_CHECKING:
    from runnel.forecast.forecaster import Forecaster


@dataclass(frozen=True, eq=False)
class Stream:
    """An immutable value. memory: of the mixers. hidden: (B, D) after the newest row. last: (B, C), that row.

    rows: (B,) seen. panel: names, calendar and first times of the series, without their values.
    """

    memory: Memory
    hidden: Tensor
    last: Tensor
    rows: Tensor
    panel: Panel


@torch.no_grad()
def begin(forecaster: Forecaster, df: Any = None) -> Stream:
    """The stream after the rows of the fit, or of a frame of the same series."""
    model, found = _model(forecaster), forecaster._fitted().panel
    if df is not None:
        found = forecaster._panel(df)
        if not np.array_equal(found.ids, forecaster._fitted().panel.ids):
            raise ValueError("a stream goes on with the series of the fit; the frame has others")
    table = forecaster._table(found, forecaster._fitted().scales, None, None)
    longest = int(table.lengths.max())
    place = torch.arange(longest)
    valid = place < table.lengths[:, None]
    values = table.values[torch.where(valid, table.starts[:, None] + place, table.starts[:, None])]
    values = values.to(model.out.weight.dtype)
    lineage = Lineage.sequence(table.count, longest) if bool(valid.all()) else Lineage.padded(valid)
    rows = torch.arange(table.count)
    hidden, memory = model.carried(model.embed(values), model.start(table.count), lineage)
    newest = table.lengths - 1
    return Stream(memory, hidden[rows, newest], values[rows, newest], table.lengths, found)


@torch.no_grad()
def update(forecaster: Forecaster, stream: Stream, rows: Any) -> Stream:
    """The stream after further rows: (S,) or (S, T) values of all series in order, or a frame that follows at once.

    A missing value (NaN) is read as the one before it. ValueError when values are infinite or do not fit.
    """
    model, scales = _model(forecaster), forecaster._fitted().scales
    given = np.asarray(rows, float) if not hasattr(rows, "columns") else _values(forecaster, stream, rows)
    count = len(stream.panel.ids)
    if given.ndim not in (1, 2) or given.shape[0] != count or given.size == 0 or np.isinf(given).any():
        raise ValueError(f"new rows must be ({count},) or ({count}, T) values without infinities; got {given.shape}")
    given = given.reshape(count, -1)
    shaped = given.T[None] if forecaster.together else given[..., None]
    values = torch.from_numpy((shaped - scales.loc[:, None]) / scales.scale[:, None]).to(stream.last)
    if bool(values.isnan().any()):
        both = np.concatenate([stream.last[:, None].numpy(), values.numpy()], axis=1)
        flat = scaling.filled(both.reshape(-1, both.shape[2]), np.full(len(both), both.shape[1]))
        values = torch.from_numpy(flat.reshape(both.shape)[:, 1:].copy()).to(stream.last)
    lineage = Lineage.sequence(*values.shape[:2]).at(stream.rows)
    hidden, memory = model.carried(model.embed(values), stream.memory, lineage)
    return Stream(memory, hidden[:, -1], values[:, -1], stream.rows + values.shape[1], stream.panel)


@torch.no_grad()
def forecast(
    forecaster: Forecaster, stream: Stream, level: Sequence[float] = (), quantiles: Sequence[float] = ()
) -> pd.DataFrame:
    """The frame that `predict` gives, after the newest row of the stream."""
    if forecaster.block is None:
        made: Direct | Paths = Direct(_law(_model(forecaster), stream.hidden), forecaster._errors())
    else:
        made = Paths(_paths(forecaster, stream))
    scales = forecaster._fitted().scales
    return forecaster._answered([made], _times(forecaster, stream), level, quantiles, scales)


def _law(model: Backbone, hidden: Tensor) -> Law:
    """Of what follows a hidden vector (B, D); windows of a stream are not normalised."""
    features = model.read_out(hidden)
    zero = torch.zeros_like(features[:, :1, :, 0])
    return Law(model.head, features if model.head is None else model.head(features), zero, zero + 1)


def _paths(forecaster: Forecaster, stream: Stream) -> Float[Tensor, "N B H C"]:
    """Every path is a fork of the state that goes on with its own draws."""
    model, count, rows = _model(forecaster), forecaster.paths, len(stream.last)
    again = torch.arange(rows).repeat(count)
    memory, hidden, seen = take_memory(stream.memory, again), stream.hidden[again], stream.rows[again]
    generator, parts = torch.Generator().manual_seed(forecaster.seed), []
    for at in range(0, forecaster.h, forecaster.step):
        noise = shared_noise(count, rows, forecaster.step, stream.last.shape[1], generator)
        parts.append(drawn(_law(model, hidden), forecaster._errors(), noise.to(hidden)))
        lineage = Lineage.sequence(len(again), forecaster.step).at(seen + at)
        states, memory = model.carried(model.embed(parts[-1]), memory, lineage)
        hidden = states[:, -1]
    return torch.cat(parts, dim=1).unflatten(0, (count, rows))


def _times(forecaster: Forecaster, stream: Stream) -> Panel:
    """The panel of the stream as long as it has become."""
    lengths = stream.rows.numpy()
    return replace(stream.panel, lengths=np.repeat(lengths, len(stream.panel.ids)) if forecaster.together else lengths)


def _values(forecaster: Forecaster, stream: Stream, frame: Any) -> np.ndarray[Any, Any]:
    """(S, T) values of a frame whose times follow those of the stream."""
    columns, known = forecaster.columns, _times(forecaster, stream)
    table = panel.to_pandas(frame)
    wide = table.assign(**{columns.time: panel.times_of(table[columns.time])}).pivot(
        index=columns.id, columns=columns.time, values=columns.target
    )
    if not np.array_equal(np.asarray(wide.index), known.ids):
        raise ValueError("new rows must have all series of the stream, and no others")
    expected = known.calendar.after(known.last_times(), wide.shape[1])
    if not (expected == wide.columns.to_numpy()[None].astype(expected.dtype)).all():
        raise ValueError(f"new rows must follow at once, from {expected.min()} on; got {wide.columns[0]}")
    return wide.to_numpy(float)


def _model(forecaster: Forecaster) -> Backbone:
    model = forecaster._fitted().model
    plain = isinstance(model, Backbone) and model.config.embed == "value" and model.norm == "none"
    columns = forecaster.columns
    if not isinstance(model, Backbone) or not plain or columns.past or columns.static:
        raise ValueError(
            'a stream needs backbone.Config(pattern, embed="value", norm="none") without past and static covariates'
        )
    return model
