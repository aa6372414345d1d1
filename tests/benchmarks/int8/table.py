"""Which contenders exist, in the order in which they are built and shown; libraries are imported when asked for."""

from __future__ import annotations

from importlib import import_module

from tests.benchmarks.int8.contender import (
    FLOAT,
    MANY_FRAMES,
    OPENVINO_FLOAT,
    OURS,
    OURS_INT8,
    OURS_TENSORRT,
    SECOND_RUN,
    Contender,
)

MODULES: dict[str, tuple[str, ...]] = {
    "ours": (FLOAT, OURS, OURS_INT8, OURS_TENSORRT, SECOND_RUN, MANY_FRAMES),
    "onnxruntime_recipes": (
        "ONNX Runtime MinMax S8S8",
        "ONNX Runtime MinMax S8S8 per channel",
        "ONNX Runtime MinMax U8S8 per channel",
        "ONNX Runtime percentile U8S8 per channel",
        "ONNX Runtime entropy U8S8 per channel",
    ),
    "nncf_recipes": (
        OPENVINO_FLOAT,
        "NNCF OpenVINO mixed",
        "NNCF OpenVINO performance",
        "NNCF ONNX mixed",
        "NNCF OpenVINO accuracy control",
        "NNCF ONNX accuracy control",
    ),
}
NAMES = tuple(name for names in MODULES.values() for name in names)


def contender_named(name: str) -> Contender:
    """One contender; only its own libraries are imported, so that memory measured for one is not another's.

    Raises:
        ValueError: there is none of that name.
    """
    module = next((module for module, names in MODULES.items() if name in names), None)
    if module is None:
        raise ValueError(f"contender {name!r}: unknown, expected one of {'; '.join(NAMES)}")
    found: tuple[Contender, ...] = import_module(f"tests.benchmarks.int8.{module}").CONTENDERS
    return next(contender for contender in found if contender.name == name)


def contenders_for(case: str, wanted: frozenset[str]) -> list[Contender]:
    """Those that take part for a model; `wanted` empty means all. Float always does: the others are compared with it.

    Raises:
        ValueError: a wanted name is unknown.
    """
    if unknown := sorted(wanted - set(NAMES)):
        raise ValueError(f"contender {unknown[0]!r}: unknown, expected some of {'; '.join(NAMES)}")
    chosen = [contender_named(name) for name in NAMES if not wanted or name in wanted or name == FLOAT]
    return [each for each in chosen if each.only in (None, case)]
