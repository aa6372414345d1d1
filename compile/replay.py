"""Build an engine again from what its manifest says, to the same bytes: proof that nothing else influenced them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compile.backends.onnxrt import build
from compile.calibration import choose_calibration, held_out
from compile.fuse import fuse_input
from compile.graph import GraphView
from compile.importer import import_model
from compile.job import feeds_of, some_feeds_of
from compile.quantizer import Quantizer
from compile.recipes import Recipe
from compile.recordings import Recordings, survey
from compile.rules import RULES
from perception.errors import CalibrationError, ModelError
from perception.model_spec import ModelSpec
from perception.package import Manifest


def rebuild(model_path: Path, *, spec: ModelSpec, manifest: Manifest, calibration: Sequence[Path]) -> bytes:
    """The engine's bytes.

    Args:
        model_path: the source model.
        spec: how the source model is fed, as it was before its input was fused.
        manifest: of the package.
        calibration: the recordings it was calibrated on.

    Raises:
        ModelError: another source model.
        CalibrationError: other recordings.
    """
    made: dict[str, Any] = dict(manifest.build)
    imported = import_model(model_path, shapes={name: tuple(sides) for name, sides in made["shapes"].items()})
    if imported.source_sha256 != made["source"]["sha256"]:
        raise ModelError(
            f"{model_path}: got sha256 {imported.source_sha256[:16]}…, the manifest was made from "
            f"{made['source']['sha256'][:16]}…; give that model"
        )
    model = imported.model
    if made["range_rule"] is not None:
        frames = _calibration_frames(calibration, made)
        quantizer = Quantizer(
            graph=GraphView.of(model),
            rules=RULES[manifest.engine.kind],
            feeds=lambda: feeds_of(spec, frames),
            some_feeds=lambda count: some_feeds_of(spec, frames, count),
            keep_float=made["kept_float"],
            weight_bits=made["weight_bits"],
            threads=made["threads"],
        )
        how = made["range_rule"], made["scope"], "replayed", made["rounding"], made["equalizes"]
        recipe = Recipe(made["candidate"], *how)
        quantizer.observe([recipe])
        model = quantizer.candidate(recipe).model
    return build(fuse_input(model, spec.picture)[0] if made["fused_input"] else model)


def _calibration_frames(paths: Sequence[Path], made: dict[str, Any]) -> Recordings:
    selection = made["selection"]
    seen = survey(paths)
    candidates = held_out(seen)[0] if selection["held_out"] else seen
    chosen = choose_calibration(paths, candidates, frames=selection["frames"], selection=selection["how"])
    if chosen.sha256 != made["calibration_sha256"]:
        raise CalibrationError(
            f"{', '.join(path.name for path in paths)}: gives calibration frames {chosen.sha256[:16]}…, the manifest "
            f"was made from {made['calibration_sha256'][:16]}…; give the recordings that calibration.json names"
        )
    return chosen.recordings
