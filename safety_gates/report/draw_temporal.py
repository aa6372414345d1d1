"""When and on which camera things flicker."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from safety_gates.evidence import KeptEvidence
from safety_gates.report.svg import FAINT, SERIES, Plot, drawing, plot_of

LEDE = "Whether what stands on the road stays there from frame to frame; no labels needed."
LINES = ("-", "--", ":")


def draw(evidence: KeptEvidence, _: Mapping[str, float]) -> tuple[Plot, ...]:
    """Flicker over the recording, of the engine and of the float model where there is one."""
    with drawing("temporal", height_in=2.6) as (axes, canvas):
        sides = [side for side in ("engine", "reference") if f"{side}_events" in evidence.arrays]
        for number, side in enumerate(sides):
            shares = _by_block(evidence, side)
            axes.step(
                np.arange(len(shares)), 100 * shares, LINES[number], color=SERIES[number], label=side, where="mid"
            )
        for border in _camera_borders(evidence)[:-1]:
            axes.axvline(border - 0.5, color=FAINT, linewidth=1.2)
        axes.set(xlim=(-0.5, None), ylim=(0, None), xlabel="stretch of time, camera after camera", ylabel="flicker, %")
        axes.legend(loc="best")
        return (
            plot_of(
                canvas,
                title="Flicker over the recordings",
                caption="Share of the objects' lives, or of the pixels, that is missing or changes for a moment. "
                "Upright lines part cameras. Where both curves rise the scene is hard, where only one does, it was "
                "compiling.",
            ),
        )


def _by_block(evidence: KeptEvidence, side: str) -> NDArray[np.float64]:
    block = np.asarray(evidence.arrays["block"], np.int64)
    events, trials = (np.bincount(block, weights=evidence.arrays[f"{side}_{name}"]) for name in ("events", "trials"))
    shares: NDArray[np.float64] = np.divide(events, trials, out=np.zeros_like(events), where=trials > 0)
    return shares


def _camera_borders(evidence: KeptEvidence) -> list[int]:
    """The stretch behind the last of each camera."""
    block, ends = evidence.arrays["block"], accumulate(evidence.arrays["frames_of_camera"].tolist())
    return [int(block[end - 1]) + 1 for end in ends]
