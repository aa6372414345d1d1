"""Weights of one layer moved and rounded so that its outputs stay, from samples of what it reads. Closed forms only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.quantize import SMALLEST_SCALE

DAMPING = 0.01
HOLDS = (10.0, 1.0)
"""How firmly weights are held where they are when they are refitted, as a share of the mean power of what they read:
they follow what integer layers give on the road, not what they gave on these samples."""
SHRUNK = np.linspace(0.7, 1.0, 16)
"""Widths of a weight grid that are tried, as shares of the widest weight."""


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Weights of one layer: codes (G, O, K), scales (G, O), and how they were made."""

    codes: NDArray[np.float32]
    scale: NDArray[np.float32]
    how: str


def rounded_in_ways(
    weight: NDArray[np.float32], real: NDArray[np.float32], ours: NDArray[np.float32], bits: int
) -> Iterator[Rounded]:
    """Each to the nearest, all together, and refitted before that.

    Args:
        weight: (G, O, K) of the float layer.
        real: (N, G, K) what the float layer reads.
        ours: (N, G, K) what the integer layer reads at the same places.
        bits: of the codes.
    """
    peaks = np.abs(weight).max(axis=2)
    limit = 2 ** (bits - 1) - 1
    scale = np.where(peaks > 0, np.maximum(peaks / limit, SMALLEST_SCALE), 1.0).astype(np.float32)
    yield Rounded(np.clip(np.rint(weight / scale[:, :, None]), -limit, limit), scale, "weights rounded to nearest")
    moments, crossed = moments_of(ours, ours), moments_of(real - ours, ours)
    yield Rounded(*rounded_together(weight, moments, bits), "weights rounded together")
    for hold in HOLDS:
        moved = refitted(weight, moments, crossed, hold=hold)
        yield Rounded(*rounded_together(moved, moments, bits), f"weights refitted, held {hold:g}, and rounded together")


def refitted(
    weight: NDArray[np.float32], moments: NDArray[np.float64], crossed: NDArray[np.float64], *, hold: float
) -> NDArray[np.float32]:
    """Weights that make of what integer layers give what the float weights make of what float layers give.

    Ridge regression towards the float weights, means apart: the bias takes those. What the layers before lose, by
    clipping above all, is made good as far as the inputs tell.

    Args:
        weight: (G, O, K) of the float layer.
        moments: (G, K, K) covariance of what the integer layer reads.
        crossed: (G, K, K) covariance with it of what it lacks of what the float layer reads.
        hold: see `HOLDS`.
    """
    held = moments + _diagonal(moments, hold)
    moved: NDArray[np.float32] = (weight + weight.astype(np.float64) @ crossed @ np.linalg.inv(held)).astype(np.float32)
    return moved


def rounded_together(
    weight: NDArray[np.float32], moments: NDArray[np.float64], bits: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Codes (G, O, K) and scales (G, O) that keep the layer's outputs, not each weight.

    Input by input, the most powerful first: a weight is rounded, and what that does to the outputs is taken up by the
    weights not rounded yet, as far as the inputs move together.

    Args:
        weight: (G, O, K).
        moments: (G, K, K) covariance of what the layer reads.
        bits: of the codes.

    Source: Frantar et al. 2022, "GPTQ"; the grid's width is searched as in Nagel et al. 2021, "A White Paper on Neural
    Network Quantization".
    """
    moments = moments + _diagonal(moments, DAMPING)
    power = np.einsum("gkk->gk", moments)
    limit = 2 ** (bits - 1) - 1
    scale = _best_scale(weight.astype(np.float64), power, limit)
    order = np.argsort(-power, axis=1, kind="stable")
    rest = np.take_along_axis(weight.astype(np.float64), order[:, None, :], 2)
    sorted_moments = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    passing_on = np.linalg.cholesky(np.linalg.inv(sorted_moments)).swapaxes(1, 2)
    codes = np.empty_like(rest)
    for k in range(rest.shape[2]):
        codes[:, :, k] = np.clip(np.rint(rest[:, :, k] / scale), -limit, limit)
        error = (rest[:, :, k] - codes[:, :, k] * scale) / passing_on[:, k, k, None]
        rest[:, :, k + 1 :] -= error[:, :, None] * passing_on[:, k, None, k + 1 :]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(codes, back[:, None, :], 2).astype(np.float32), scale.astype(np.float32)


def moments_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """(G, K, K): covariance of (N, G, K) samples."""
    left, right = ((each - each.mean(axis=0)).swapaxes(0, 1) for each in (one, other))
    covariance: NDArray[np.float64] = (left.swapaxes(1, 2) @ right).astype(np.float64) / one.shape[0]
    return covariance


def _diagonal(moments: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """(G, K, K): a share of the mean power on the diagonal."""
    power = share * np.einsum("gkk->gk", moments).mean(axis=1) + np.finfo(np.float32).tiny
    diagonal: NDArray[np.float64] = np.eye(moments.shape[1]) * power[:, None, None]
    return diagonal


def _best_scale(weight: NDArray[np.float64], power: NDArray[np.float64], limit: int) -> NDArray[np.float64]:
    """(G, O): for each output the scale whose rounding costs least, inputs weighed by their power."""
    peak = np.abs(weight).max(axis=2)
    tried = np.where(peak > 0, np.maximum(peak / limit, SMALLEST_SCALE), 1.0) * SHRUNK[:, None, None]
    errors = []
    for scale in tried.astype(np.float32).astype(np.float64):
        rounded = np.clip(np.rint(weight / scale[:, :, None]), -limit, limit) * scale[:, :, None]
        errors.append(((weight - rounded) ** 2 * power[:, None, :]).sum(axis=2))
    best = np.argmin(errors, axis=0)
    chosen: NDArray[np.float64] = np.take_along_axis(tried, best[None], 0)[0]
    return chosen.astype(np.float32).astype(np.float64)
