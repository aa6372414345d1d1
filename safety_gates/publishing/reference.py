"""What a release sees and says where it is published: the distributions its drives are held against."""

from __future__ import annotations

from collections.abc import Iterable

from perception.distributions import InputCounts, OutputCounts
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import open_pipeline
from perception.telemetry_record import Reference


def reference_of(package: EnginePackage, frames: Iterable[Frame]) -> Reference:
    """Run frames through a package and count what they look like and what it says about them.

    Raises:
        PreflightError: this machine may not run the package.
        EngineError: the engine failed.
    """
    pictures, said = InputCounts(), OutputCounts()
    with open_pipeline(package) as pipeline:
        for frame in frames:
            pictures.add(frame.pixels)
            if (result := pipeline.step(frame).result) is not None:
                said.add(result)
    return Reference(input=pictures.counted(), output=said.counted())
