"""What a package says about frames that follow each other in real time, recording by recording."""

from __future__ import annotations

from dataclasses import replace

from compile.accuracy import LOWEST_SCORE
from perception.package import EnginePackage
from perception.pipeline import open_pipeline
from perception.results import Result
from perception.sources.table import open_source
from safety_gates.conditions import Conditions
from safety_gates.looks import Observation, logged
from safety_gates.reading import Reader
from safety_gates.result_log import FrameKey

SEQUENCE_FRAMES = 300


def observe_sequences(reader: Reader, package: EnginePackage, wanted: Conditions) -> Observation:
    """The first `SEQUENCE_FRAMES` of each timing recording, their cameras named `NUMBER/CAMERA`.

    Raises:
        TollgateError: a recording or the engine fails.
    """
    rows: list[tuple[FrameKey, Result | None]] = []
    with open_pipeline(package, score_threshold=LOWEST_SCORE) as pipeline:
        for number, path in enumerate(reader.sequences(), start=1):
            what = f"results of {package.manifest.name}, {path.name}"
            with reader.stepped(open_source(path), what, SEQUENCE_FRAMES) as frames:
                for frame in frames:
                    key = replace(FrameKey.of(frame), camera_id=f"{number}/{frame.camera_id}")
                    rows.append((key, pipeline.step(frame).result))
    return logged(rows, package, wanted)


def recording_of(frame: FrameKey) -> str:
    """The number of the timing recording that a frame belongs to."""
    return frame.camera_id.partition("/")[0]
