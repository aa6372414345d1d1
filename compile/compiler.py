"""ONNX model in, engine package out, for one profile, on the machine the profile names."""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from compile.backends.onnxrt import opened
from compile.candidate import Candidate
from compile.contest import Contest, losses_document
from compile.coverage import coverage_of
from compile.decide import Decision
from compile.explain.page import PAGE, render
from compile.explain.report import REPORT, read_report
from compile.job import Job, open_job
from compile.layers import layers_document
from compile.manifest import build_entries
from compile.options import CompileOptions
from compile.parity import Parity, Subject, compare
from compile.plans import layer_times
from compile.quantizer import Quantizer, kept_by_pattern
from compile.rules import RULES
from compile.search import search
from compile.shipment import Fusion, Shipment, prepare_shipment
from compile.target import Target, open_target
from hw_profiles.machine import INT8_FEATURES, Machine
from hw_profiles.profile import Profile
from perception.engines.engine import Tensors
from perception.errors import OutputError
from perception.files import cannot_write, json_bytes, sha256_of_bytes
from perception.package import MANIFEST, PROFILE, SPEC, EngineEntry, EnginePackage, write_package
from perception.preprocess import Preprocessor
from perception.terminal import Terminal

DEFAULT_OPTIONS = CompileOptions()
PARITY_FRAMES = 32


@dataclass(frozen=True, slots=True)
class CompileOutcome:
    """What a compilation came to.

    Attributes:
        decision: what ships and why.
        package: None where INT8 was demanded and none is good enough; then the following are None too.
        reference: the float package, where one was asked for.
        fusion: of the input.
        parity: the shipped engine against float.
        search: how the search went, as `compile.json` holds it.
    """

    decision: Decision
    search: dict[str, JsonValue]
    package: EnginePackage | None = None
    reference: EnginePackage | None = None
    fusion: Fusion | None = None
    parity: Parity | None = None


def compile_model(
    model_path: Path,
    *,
    profile: Profile,
    calibration: Sequence[Path],
    output: Path,
    options: CompileOptions = DEFAULT_OPTIONS,
    terminal: Terminal | None = None,
) -> CompileOutcome:
    """Compile a model: import, calibrate, quantize, measure, decide, pack.

    Args:
        model_path: the ONNX file.
        profile: the machine; it must be this one, since the decision rests on what is measured here.
        calibration: recordings to calibrate on: clips and folders.
        output: folder of the package; an older package there is replaced.
        options: everything else.
        terminal: where progress is shown; None shows none.

    Raises:
        TollgateError: the world's fault, in one line; nothing was written.
    """
    for folder in filter(None, (output, options.reference_output)):
        require_writable(folder)
    job = open_job(
        model_path,
        profile=profile,
        calibration=calibration,
        options=options,
        terminal=terminal or Terminal(quiet=True),
    )
    job.store.tidy()
    target, quantizer = open_target(job), _quantizer(job)
    started_s = time.monotonic()
    contest = search(job, quantizer, target)
    searched = _search(contest, time.monotonic() - started_s)
    decision = contest.decision()
    if decision.chosen is None:
        return CompileOutcome(decision, searched)
    shipment = prepare_shipment(job, contest.candidates[decision.chosen.name])
    reference = Shipment.unfused(quantizer.float_candidate(), job.spec, "this is the reference")
    parity = _parity(job, target, reference, shipment)
    report = {**_report(contest, decision, shipment, parity), "search": searched}
    return CompileOutcome(
        decision,
        searched,
        package=_write(job, target, shipment, output, report=report),
        reference=None
        if options.reference_output is None
        else _write(job, target, reference, options.reference_output),
        fusion=shipment.fusion,
        parity=parity,
    )


def weight_bits(machine: Machine) -> int:
    """7 on x86 without integer dot products, where sums of two 8-bit products overflow 16 bits; else 8.

    Source: ONNX Runtime documentation, "Quantize ONNX Models", on reduce_range.
    """
    saturates = machine.cpu.arch == "x86_64" and not set(machine.cpu.features) & set(INT8_FEATURES)
    return 7 if saturates else 8


def require_writable(folder: Path) -> None:
    """Refuse an output that cannot be written, before minutes are spent on what goes there.

    Raises:
        OutputError: read-only, a file, or a folder of something that is no package.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, expected a folder or nothing; choose another output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise OutputError(f"{folder}: holds other files, expected a package or nothing; choose another output")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder.parent, prefix=f".{folder.name}."):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def _quantizer(job: Job) -> Quantizer:
    return Quantizer(
        graph=job.graph,
        rules=RULES[job.profile.engine_kind],
        feeds=job.feeds,
        some_feeds=job.some_feeds,
        keep_float=kept_by_pattern(job.graph, job.options.keep_float),
        weight_bits=weight_bits(job.machine),
        threads=job.threads,
        identity=(job.imported.source_sha256, sha256_of_bytes(job.spec.to_yaml().encode()), job.calibration.sha256),
        store=job.store,
    )


def _parity(job: Job, target: Target, reference: Shipment, shipment: Shipment) -> Parity:
    recordings = job.evaluation.recordings.some(PARITY_FRAMES)
    with (
        opened(reference.content, threads=job.threads) as first,
        target.opened(shipment.content) as second,
        job.terminal.progress("parity of what ships with float", len(recordings)) as step,
    ):
        subjects = Subject(reference.spec, first), Subject(shipment.spec, second)
        return compare(*subjects, recordings.frames(), advance=step)


def _report(contest: Contest, decision: Decision, shipment: Shipment, parity: Parity) -> dict[str, JsonValue]:
    """What `compile.json` holds: everything measured, and on what."""
    job = contest.job
    recordings = job.evaluation.recordings
    return {
        "format": "tollgate-compile/1",
        "decision": decision.document(),
        "fusion": shipment.fusion.document(),
        "parity": parity.document(),
        "kept_float": dict(shipment.candidate.kept_float),
        "cannot_be_quantized": dict(shipment.candidate.unfit),
        "layer_losses": losses_document(contest.losses),
        "layers": _layers(contest, shipment.candidate),
        "coverage": coverage_of(job.calibration.recordings.chosen, recordings.chosen).document(),
        "time_by_operator": _time_by_operator(contest, shipment),
        "fresh_process_db": cast("JsonValue", contest.target.proof(shipment.content, _one_feed(job, shipment))),
        "evaluation": {
            "recordings": [dict(source) for source in recordings.sources()],
            "frames": len(recordings),
            "labelled": job.evaluation.labels is not None,
        },
        "machine": cast("JsonValue", job.machine.document()),
        "threads": job.threads,
    }


def _layers(contest: Contest, candidate: Candidate) -> list[JsonValue]:
    """What became of each weighted layer, and the figures known of it."""
    why_float = {**candidate.unfit, **candidate.kept_float}
    if candidate.recipe is None:
        why_float = {node.name: "float ships" for node in contest.quantizer.graph.nodes}
    losses = next(iter(contest.losses.values()), [])
    figures: dict[str, Mapping[str, float]] = {
        "macs": contest.macs,
        "loss": {loss.node: loss.noise_share for loss in losses},
        "task_effect": contest.effects,
        "time_us_float": layer_times(contest, contest.reference),
        "time_us": layer_times(contest, candidate),
    }
    quantizer = contest.quantizer
    return layers_document(
        [node for node in quantizer.graph.nodes if node.op_type in quantizer.rules.weighted_ops],
        integer_nodes=candidate.integer_nodes,
        why_float=why_float,
        recipes={
            node.name: node.doc_string or candidate.recipe.words
            for node in candidate.model.graph.node
            if candidate.recipe is not None
        },
        figures=figures,
    )


def _search(contest: Contest, seconds: float) -> dict[str, JsonValue]:
    """How the search went: every engine it tried, on its own frames, and what it cost."""
    front = contest.front()
    points: list[JsonValue] = [
        {
            "name": name,
            "agreement": grade.agreement,
            "drift": grade.apart,
            "time_ratio": contest.latencies[name].ratio.middle if name in contest.latencies else None,
            "float_macs_share": contest.float_share(name),
            "float_layers": contest.candidates[name].weighted_layers - contest.candidates[name].integer_layers,
            "on_front": name in front,
            "graded": name in contest.grades,
            "failure": grade.failure,
        }
        for name, grade in contest.trials.items()
    ]
    store = contest.job.store
    return {
        "seconds": seconds,
        "cached": store.recalled > store.made,
        "answers": {"recalled": store.recalled, "made": store.made},
        "build_seconds": None if contest.target.build_seconds is None else list(contest.target.build_seconds),
        "objective": "latency" if contest.target.is_timed else "multiply-adds",
        "frames": 0 if contest.trial is None else len(contest.trial.recordings),
        "points": points,
        "notes": list(contest.notes),
    }


def _one_feed(job: Job, shipment: Shipment) -> Tensors:
    frame = next(iter(job.evaluation.recordings.frames()))
    return Preprocessor(shipment.spec.picture, shipment.spec.size_input).prepare(frame.pixels).feeds


def _time_by_operator(contest: Contest, shipment: Shipment) -> dict[str, JsonValue]:
    """Share of the engine's time that goes to each operator, as the runtime executes them after its fusions."""
    feeds = _one_feed(contest.job, shipment)
    totals: dict[str, float] = defaultdict(float)
    for node in contest.target.node_times(shipment.content, feeds):
        totals[node.op_type] += node.mean_us
    whole_us = sum(totals.values())
    return {name: share_us / whole_us for name, share_us in sorted(totals.items(), key=lambda item: -item[1])}


def _write(
    job: Job, target: Target, shipment: Shipment, folder: Path, *, report: dict[str, JsonValue] | None = None
) -> EnginePackage:
    candidate = shipment.candidate
    files = {
        target.engine_file: target.serialised(shipment.content),
        **target.beside(shipment.content),
        SPEC: shipment.spec.to_yaml().encode(),
        PROFILE: job.profile.to_yaml().encode(),
    }
    name = f"{job.spec.name}-{job.profile.name}"
    if report is not None:
        files[REPORT] = json_bytes(report)
        files[PAGE] = render(read_report(json.loads(files[REPORT]), REPORT), name)
    if candidate.recipe is not None:
        files["calibration.json"] = json_bytes(job.calibration.document())
    engine = EngineEntry(
        kind=job.profile.engine_kind,
        file=target.engine_file,
        precision=candidate.precision,
        requires=target.requires,
    )
    build = build_entries(job, candidate, weight_bits=weight_bits(job.machine), fused_input=shipment.fusion.kept)
    return write_package(folder, files, name=name, engine=engine, build=build)
