"""Scans over whole sequences in C++, with their gradients: float32 on the CPU, for chains.

`runnel.ops` shows what they compute and picks them where `native.runs` says so. Channels are contiguous in memory;
rows and tokens may lie anywhere, so halves of a projection are read in place.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from runnel import native

MOST_TAPS = 16
"""The widest convolution that the kernels take."""


def selective_scan(
    x: Float32[Tensor, "B T D"],
    dt: Float32[Tensor, "B T D"],
    a: Float32[Tensor, "D N"],
    b: Float32[Tensor, "B T N"],
    c: Float32[Tensor, "B T N"],
    memory: Float32[Tensor, "B D N"],
    reset: Bool[Tensor, "B T"] | None,
) -> tuple[Float32[Tensor, "B T D"], Float32[Tensor, "B D N"]]:
    """As `ops.selective`; reset: true where the memory is zero before the token.

    Backward computes the states of every 32 tokens anew from the one kept before them.
    """
    x, dt, b, c = [_channels_contiguous(z) for z in (x, dt, b, c)]
    inputs = (x, dt, a.contiguous(), b, c, memory.contiguous())
    return _SelectiveScan.apply(*inputs, None, None, None, None, reset, _trains(*inputs))


def gated_selective_scan(
    x: Float32[Tensor, "B T D"],
    rank: Float32[Tensor, "B T R"],
    dt_weight: Float32[Tensor, "D R"],
    dt_bias: Float32[Tensor, "D"],
    a: Float32[Tensor, "D N"],
    b: Float32[Tensor, "B T N"],
    c: Float32[Tensor, "B T N"],
    skip: Float32[Tensor, "D"],
    z: Float32[Tensor, "B T D"],
    memory: Float32[Tensor, "B D N"],
    reset: Bool[Tensor, "B T"] | None,
) -> tuple[Float32[Tensor, "B T D"], Float32[Tensor, "B D N"]]:
    """As `ops.selective`. Of what is as large as x, backward needs x and z only; the rest it computes anew."""
    x, b, c, z = [_channels_contiguous(y) for y in (x, b, c, z)]
    inputs = (x, rank, a.contiguous(), b, c, memory.contiguous(), dt_weight, dt_bias.contiguous(), skip.contiguous(), z)
    return _SelectiveScan.apply(*inputs, reset, _trains(*inputs))


def diagonal_scan(
    a: Float32[Tensor, "B T *D"], b: Float32[Tensor, "B T *D"], memory: Float32[Tensor, "B *D"]
) -> Float32[Tensor, "B T *D"]:
    """As `ops.scan`: the state after every token."""
    flat = [_channels_contiguous(z.flatten(2) if z.dim() > 2 else z[..., None]) for z in (a, b)]
    return _DiagonalScan.apply(*flat, memory.reshape(memory.shape[0], -1).contiguous()).view(b.shape)


def causal_conv(
    x: Float32[Tensor, "B T D"],
    weight: Float32[Tensor, "D W"],
    bias: Float32[Tensor, "D"] | None,
    tail: Float32[Tensor, "B W-1 D"],
    taps: Int64[Tensor, "B T W"] | None,
    silu: bool,
) -> Float32[Tensor, "B T D"]:
    """As `ops.conv`, perhaps followed by silu; taps: those of `Lineage.taps`, None for an ordinary sequence."""
    by_tap = weight.mT.contiguous()
    bias, taps = [None if z is None else z.contiguous() for z in (bias, taps)]
    return _Convolution.apply(_channels_contiguous(x), by_tap, bias, tail.contiguous(), taps, silu)


def decays(log: Float32[Tensor, "*B C"]) -> Float32[Tensor, "*B C C"]:
    """exp of the sum of log over (j, t] at [t, j], zero for j > t: what a write at j has suffered when t reads it."""
    return _Decays.apply(log.contiguous())


class _SelectiveScan(torch.autograd.Function):
    """Plain, or gated where dt_weight and what follows are given: dt is then the factor `rank` of the steps."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        memory: Tensor,
        dt_weight: Tensor | None,
        dt_bias: Tensor | None,
        skip: Tensor | None,
        z: Tensor | None,
        reset: Tensor | None,
        trains: bool,
    ) -> tuple[Tensor, Tensor]:
        kernels = native.kernels()
        (batch, length, channels), states = x.shape, a.shape[1]
        steps, y, last = _steps(dt, dt_weight), x.new_empty(x.shape), torch.empty_like(memory)
        blocks = -(-channels // kernels.SCAN_LANES)
        shape = (batch, blocks, kernels.scan_chunks(length), states, kernels.SCAN_LANES)
        kept = x.new_empty(shape) if trains else None
        reset = None if reset is None else reset.contiguous()
        rows = [_rows(part) for part in (x, steps, b, c, y, z)]
        data = _addresses(a, memory, reset, last, kept, skip, dt_bias)
        kernels.selective_forward([batch, length, channels, states], rows, data, torch.get_num_threads())
        ctx.save_for_backward(x, dt, a, b, c, dt_weight, dt_bias, skip, z, reset, kept)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, dlast: Tensor) -> tuple[Tensor | None, ...]:
        kernels = native.kernels()
        x, dt, a, b, c, dt_weight, dt_bias, skip, z, reset, kept = ctx.saved_tensors
        (batch, length, channels), states = x.shape, a.shape[1]
        steps, dy, dlast = _steps(dt, dt_weight), _channels_contiguous(dy), dlast.contiguous()
        dx, dsteps = x.new_empty(x.shape), x.new_empty(x.shape)
        dz = None if z is None else x.new_empty(x.shape)
        da, dmemory = x.new_empty(batch, channels, states), torch.empty_like(dlast)
        db, dc = x.new_empty(2, kernels.scan_parts(channels), batch, length, states)
        dskip, ddt_bias = x.new_empty(2, batch, channels)
        rows = [_rows(part) for part in (x, steps, b, c, dy, z, dx, dsteps, dz)]
        data = _addresses(a, None, reset, dlast, kept, skip, dt_bias, da, db, dc, dmemory, dskip, ddt_bias)
        kernels.selective_backward([batch, length, channels, states], rows, data, torch.get_num_threads())
        gradients = da.sum(0), db.sum(0), dc.sum(0), dmemory
        if dt_weight is None:
            return dx, dsteps, *gradients, None, None, None, None, None, None
        dweight = dsteps.flatten(0, 1).mT @ dt.flatten(0, 1)
        return dx, dsteps @ dt_weight, *gradients, dweight, ddt_bias.sum(0), dskip.sum(0), dz, None, None


def _steps(dt: Tensor, weight: Tensor | None) -> Tensor:
    return dt if weight is None else dt @ weight.mT


class _DiagonalScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, memory: Tensor) -> Tensor:
        h = b.new_empty(b.shape)
        rows = [_rows(z) for z in (a, b, h)]
        native.kernels().diagonal_forward(list(b.shape), rows, _addresses(memory), torch.get_num_threads())
        ctx.save_for_backward(a, memory, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, ...]:
        a, memory, h = ctx.saved_tensors
        da, db, dmemory = h.new_empty(h.shape), h.new_empty(h.shape), torch.empty_like(memory)
        rows = [_rows(z) for z in (a, db, h, _channels_contiguous(dh), da)]
        data = _addresses(memory, dmemory)
        native.kernels().diagonal_backward(list(h.shape), rows, data, torch.get_num_threads())
        return da, db, dmemory


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, tail: Tensor, taps: Tensor | None, silu: bool
    ) -> Tensor:
        y = x.new_empty(x.shape)
        ctx.sizes = [*x.shape, weight.shape[0], int(silu)]
        data = _addresses(weight, bias, tail, taps)
        native.kernels().convolution_forward(ctx.sizes, [_rows(x), _rows(y)], data, torch.get_num_threads())
        ctx.save_for_backward(x, weight, bias, tail, taps)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, tail, taps = ctx.saved_tensors
        batch, _, channels = x.shape
        dx, dtail = x.new_zeros(x.shape), torch.zeros_like(tail)  # added to
        dweight, dbias = x.new_empty(batch, *weight.shape), x.new_empty(batch, channels)
        rows = [_rows(z) for z in (x, x, _channels_contiguous(dy), dx)]
        data = _addresses(weight, bias, tail, taps, dtail, dweight, dbias)
        native.kernels().convolution_backward(ctx.sizes, rows, data, torch.get_num_threads())
        return dx, dweight.sum(0), None if bias is None else dbias.sum(0), dtail, None, None


class _Decays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log: Tensor) -> Tensor:
        size = log.shape[-1]
        decay = log.new_empty(*log.shape, size)
        chunks, threads = log.numel() // size, torch.get_num_threads()
        native.kernels().decays_forward(chunks, size, log.data_ptr(), decay.data_ptr(), threads)
        ctx.save_for_backward(decay)
        return decay

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, ddecay: Tensor) -> Tensor:
        (decay,) = ctx.saved_tensors
        size, ddecay = decay.shape[-1], ddecay.contiguous()
        dlog = decay.new_empty(decay.shape[:-1])
        chunks, threads = dlog.numel() // size, torch.get_num_threads()
        addresses = _addresses(decay, ddecay, dlog)
        native.kernels().decays_backward(chunks, size, *addresses, threads)
        return dlog


def _channels_contiguous(x: Tensor) -> Tensor:
    return x if x.shape[-1] < 2 or x.stride(-1) == 1 else x.contiguous()


def _trains(*inputs: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in inputs)


def _rows(x: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if x is None else (x.data_ptr(), x.stride(0), x.stride(1))


def _addresses(*tensors: Tensor | None) -> list[int]:
    return [0 if x is None else x.data_ptr() for x in tensors]
