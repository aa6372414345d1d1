"""This project's contenders: the plan for the CPU, the placement for TensorRT, and what its search costs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import onnx

from compile.calibration import choose_calibration
from compile.candidate import Candidate
from compile.compiler import compile_model
from compile.grading import Grade
from compile.job import Job, open_job
from compile.options import MIN_AGREEMENT, CompileOptions
from compile.quantizer import Quantizer
from compile.recordings import survey
from compile.rules import RULES
from compile.search import search
from compile.target import SimulatedTarget
from hw_profiles.machine import read_machine
from hw_profiles.profile import Profile, load_profile
from perception.terminal import Terminal
from tests.benchmarks.int8.cases import LIMITS
from tests.benchmarks.int8.contender import (
    FLOAT,
    MANY_FRAMES,
    OURS,
    OURS_INT8,
    OURS_TENSORRT,
    PROBED,
    SECOND_RUN,
    Built,
    Contender,
    RefusedError,
)
from tests.benchmarks.int8.material import Material
from tests.benchmarks.int8.shares import onnx_share

PROFILES = {"x86_64": "x86_cpu", "aarch64": "arm_cpu"}
PROBE_FRAMES = 512


def tensorrt_simulation(job: Job, least_share: float) -> tuple[Candidate, str]:
    """The network as it would be handed to TensorRT, and what the search tried.

    The limits are those that compile keeps by itself. Of the engines within them on the validation frames the one with
    the most multiply-adds in INT8; where none is, the one nearest to float that computes at least `least_share` of them
    in INT8.
    """
    quantizer = Quantizer(
        graph=job.graph,
        rules=RULES["tensorrt"],
        feeds=job.feeds,
        some_feeds=job.some_feeds,
        keep_float={},
        weight_bits=8,
        threads=job.threads,
        identity=(job.imported.source_sha256, job.calibration.sha256),
        store=job.store,
    )
    contest = search(job, quantizer, SimulatedTarget(job.threads))
    finalists = [name for name in contest.grades if contest.candidates[name].recipe is not None]
    within = [name for name in finalists if contest.limits.admit(**_lost(contest.grades[name]))]
    integer = [name for name in finalists if 1 - contest.float_share(name) >= least_share]
    if within:
        chosen = min(within, key=contest.float_share)
    else:
        chosen = min(integer or finalists, key=lambda name: contest.grades[name].apart)
    words = f"{chosen}{'' if within else ', beyond the limits on the validation frames'}; {len(contest.trials)} tried"
    return contest.candidates[chosen], words


def _lost(grade: Grade) -> dict[str, float]:
    return {"loss": grade.loss, "agreement": grade.agreement}


def build_float(material: Material, folder: Path) -> Built:
    """The model as everybody gets it."""
    shutil.copyfile(material.float_path, folder / "engine.onnx")
    return Built("onnxrt", 0.0)


def build_auto(material: Material, folder: Path) -> Built:
    """What ships by default: INT8, mixed or float, whichever measures best."""
    return _compile(material, folder, material.case.calibration)


def build_int8(material: Material, folder: Path) -> Built:
    """INT8 whether or not it is faster; only where `auto` shipped float."""
    auto = folder.parent / OURS / "engine.onnx"
    if auto.is_file() and onnx_share(onnx.load(auto)) > 0:
        raise RefusedError(f"{OURS} ships INT8 by itself")
    return _compile(material, folder, material.case.calibration, precision="int8")


def build_tensorrt(material: Material, folder: Path) -> Built:
    """The placement for TensorRT, graded with ONNX Runtime rounding to its grids."""
    promised = material.case.limits or LIMITS[PROBED]
    options = replace(_options(material), precision="int8", min_agreement=MIN_AGREEMENT)
    job = open_job(
        material.case.model,
        profile=_profile(),
        calibration=material.case.calibration,
        options=options,
        terminal=Terminal(quiet=True),
    )
    candidate, words = tensorrt_simulation(job, promised.tensorrt_share)
    (folder / "engine.onnx").write_bytes(candidate.content)
    return Built("rounded", onnx_share(candidate.model), note=words)


def build_again(material: Material, folder: Path) -> Built:
    """The same compilation once more, into the same package."""
    return _compile(material, folder, material.case.calibration, package=folder.parent / OURS / "package")


def build_from_many(material: Material, folder: Path) -> Built:
    """The same with 512 calibration frames, for its peak of memory; no figure of this engine is graded."""
    pictures = _many_frames(material, folder / "frames")
    try:
        case = material.case  # the validation frames come from the same recordings: here they may be among the 512
        built = _compile(material, folder, [pictures], frames=PROBE_FRAMES, recording=case.labelled, labels=case.labels)
    finally:
        shutil.rmtree(pictures)
    return replace(built, note=f"{PROBE_FRAMES} frames, mirrored ones among them")


CONTENDERS = (
    Contender(FLOAT, build_float),
    Contender(OURS, build_auto),
    Contender(OURS_INT8, build_int8),
    Contender(OURS_TENSORRT, build_tensorrt, timed=False),
    Contender(SECOND_RUN, build_again, timed=False, graded=False, only=PROBED),
    Contender(MANY_FRAMES, build_from_many, timed=False, graded=False, only=PROBED),
)


def _compile(
    material: Material,
    folder: Path,
    calibration: Sequence[Path],
    *,
    package: Path | None = None,
    **options: Any,
) -> Built:
    outcome = compile_model(
        material.case.model,
        profile=_profile(),
        calibration=calibration,
        output=package or folder / "package",
        options=replace(_options(material), **options),
    )
    if outcome.package is None:
        raise RefusedError(outcome.decision.why)
    content = outcome.package.engine_bytes
    (folder / "engine.onnx").write_bytes(content)
    return Built("onnxrt", onnx_share(onnx.load_from_string(content)), note=outcome.decision.why)


def _options(material: Material) -> CompileOptions:
    """The validation frames to decide on; the input stays unfused, so that all engines take the same tensors."""
    return CompileOptions(
        spec=material.case.spec,
        recording=material.validation,
        labels=material.validation_labels,
        class_map=material.case.class_map,
        frames=max(len(list(material.calibration.iterdir())), 16),
        fuse="off",
        cache=material.folder / "cache",
    )


def _profile() -> Profile:
    return load_profile(PROFILES[read_machine().cpu.arch])


def _many_frames(material: Material, folder: Path) -> Path:
    """512 pictures no two of which look alike: whatever there is of this model's recordings, then mirrored ones."""
    paths = (*material.case.calibration, *material.case.compared)
    chosen = choose_calibration(paths, survey(paths), frames=PROBE_FRAMES).recordings
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(chosen.frames()):
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), frame.pixels)
        if len(chosen) + number < PROBE_FRAMES:
            cv2.imwrite(str(folder / f"{len(chosen) + number:04d}.jpg"), frame.pixels[:, ::-1])
    return folder
