"""Everything that influenced the bytes of an engine. The same entries give the same ONNX bytes."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from pydantic import JsonValue

from compile.candidate import Candidate
from compile.job import Job
from perception.files import sha256_of_bytes

LIBRARIES = ("tollgate", "onnx", "onnxruntime", "numpy", "opencv-python", "opencv-python-headless", "av")


def build_entries(job: Job, candidate: Candidate, *, weight_bits: int, fused_input: bool) -> dict[str, JsonValue]:
    """The manifest's `build`.

    Args:
        job: what was compiled, from what, for which profile.
        candidate: what ships.
        weight_bits: bits of quantized weights.
        fused_input: the engine takes bytes and normalises them itself.
    """
    recipe = candidate.recipe
    calibrated = recipe is not None
    return {
        "source": {"sha256": job.imported.source_sha256, "opset": job.imported.source_opset},
        "import": {"changes": list(job.imported.changes), "notes": list(job.imported.notes)},
        "shapes": {name: list(sides) for name, sides in job.options.shapes.items()},
        "spec_sha256": sha256_of_bytes(job.spec.to_yaml().encode()),
        "profile_sha256": sha256_of_bytes(job.profile.to_yaml().encode()),
        "calibration_sha256": job.calibration.sha256 if calibrated else None,
        "selection": _selection(job) if calibrated else None,
        "candidate": candidate.name,
        "range_rule": recipe.range_rule if recipe is not None else None,
        "scope": recipe.scope if recipe is not None else None,
        "rounding": recipe.rounding if recipe is not None else None,
        "equalizes": recipe.equalizes if recipe is not None else None,
        "weight_bits": weight_bits if calibrated else None,
        "kept_float": dict(candidate.kept_float),
        "fused_input": fused_input,
        "cpu": job.machine.cpu.model,
        "threads": job.threads,
        "python": platform.python_version(),
        "gpu": _gpu(job),
        "libraries": _versions(),
    }


def _versions() -> dict[str, JsonValue]:
    """Of what is installed: OpenCV goes by one of two names, and this project may run from its sources."""
    found: dict[str, JsonValue] = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _selection(job: Job) -> dict[str, JsonValue]:
    return {"frames": job.options.frames, "how": job.options.selection, "held_out": job.calibrated_early}


def _gpu(job: Job) -> JsonValue:
    gpu = job.machine.gpu
    if job.profile.engine_kind != "tensorrt" or gpu is None:
        return None
    return {"name": gpu.name, "driver": gpu.driver, "tensorrt": job.machine.libraries.tensorrt}
