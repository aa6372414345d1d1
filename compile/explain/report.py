"""`compile.json` read back: typed, checked once, and with every key that older packages lack allowed to be absent."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import PackageError

REPORT = "compile.json"


class _Read(BaseModel):
    """Keys that this release does not know are left out, so that a newer report can still be read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class TimesFloat(_Read):
    """Time over float's: the median of rounds and its 95 % interval."""

    low: float
    median: float
    high: float


class Timing(_Read):
    """Latency of one candidate; percentiles that the runs do not carry are None."""

    samples: int
    p50_ms: float
    p99_ms: float | None = None
    times_float: TimesFloat


class Candidate(_Read):
    """One engine that was weighed; see `compile.decide.Row`."""

    name: str
    precision: str
    recipe: str
    loss: float
    agreement: float
    scores: dict[str, float] = Field(default_factory=dict)
    latency: Timing | None
    size_bytes: int
    float_layers: int
    weighted_layers: int

    @property
    def time_ratio(self) -> float | None:
        """Time over float's; None where it was not timed."""
        return None if self.latency is None else self.latency.times_float.median


class Decision(_Read):
    """What ships and why; see `compile.decide.Decision`."""

    chosen: str | None
    why: str
    naive: str = ""
    metric: str
    max_loss: float
    min_agreement: float
    noise: float
    candidates: tuple[Candidate, ...] = Field(min_length=1)


class Layer(_Read):
    """One layer of the engine that ships; figures that were not measured are None.

    Attributes:
        why: it is float.
        macs: multiply-adds.
        loss: share of its output's variance that 8 bits lose.
        task_effect: how far the results drift from float's with this layer alone in 8 bits.
        recipe: how its 8 bits are made.
        time_us, time_us_float: in the engine that ships, and in float.
    """

    node: str
    op_type: str = ""
    precision: Literal["int8", "float"]
    why: str = ""
    macs: int | None = None
    loss: float | None = None
    task_effect: float | None = None
    recipe: str = ""
    time_us_float: float | None = None
    time_us: float | None = None


class SearchPoint(_Read):
    """One engine that the search tried, on frames of its own.

    Attributes:
        time_ratio: time over float's; None where it was not timed.
        on_front: none is both cheaper and nearer to float.
        graded: it was a finalist.
        failure: why it could not even run.
    """

    name: str
    agreement: float
    drift: float
    time_ratio: float | None
    float_macs_share: float
    float_layers: int
    on_front: bool = False
    graded: bool = False
    failure: str = ""


class Search(_Read):
    """How the precision of each layer was searched.

    Attributes:
        objective: `latency`, or `multiply-adds` where the engine was not timed.
        frames: that engines were tried on.
    """

    seconds: float
    cached: bool = False
    objective: Literal["latency", "multiply-adds"] = "latency"
    frames: int = 0
    points: tuple[SearchPoint, ...] = ()
    notes: tuple[str, ...] = ()


class Spread(_Read):
    """See `compile.coverage.Spread`."""

    edges: tuple[float, ...]
    calibration: tuple[int, ...]
    evaluation: tuple[int, ...]
    least: float
    most: float


class Nearness(_Read):
    """See `compile.coverage.Nearness`."""

    edges: tuple[float, ...]
    evaluation: tuple[int, ...]
    median: float
    limit: float
    farthest_frame: str
    farthest: float


class Coverage(_Read):
    """See `compile.coverage.Coverage`."""

    calibration_frames: int
    evaluation_frames: int
    brightness: Spread
    contrast: Spread
    nearest: Nearness
    verdict: str


class OutputDifference(_Read):
    """One output tensor against float; an infinite ratio is None."""

    tensor: str
    largest: float
    mean: float
    sqnr_db: float | None


class Parity(_Read):
    """What ships against float on the same frames; see `compile.parity.Parity`."""

    frames: int
    agreement: float
    worst_frame: str
    worst_agreement: float
    outputs: tuple[OutputDifference, ...]


class Fusion(_Read):
    """Whether the engine takes bytes and normalises them itself."""

    kept: bool
    why: str


class Recording(_Read):
    """A recording by name and digest."""

    name: str
    sha256: str


class Evaluation(_Read):
    """The frames that graded the candidates."""

    recordings: tuple[Recording, ...]
    frames: int
    labelled: bool


class CompileReport(_Read):
    """All of `compile.json`.

    Attributes:
        time_by_operator: operator → share of the time of the engine that ships.
    """

    format: Literal["tollgate-compile/1"]
    decision: Decision
    fusion: Fusion
    parity: Parity
    kept_float: dict[str, str] = Field(default_factory=dict)
    cannot_be_quantized: dict[str, str] = Field(default_factory=dict)
    time_by_operator: dict[str, float] = Field(default_factory=dict)
    evaluation: Evaluation
    machine: dict[str, JsonValue] = Field(default_factory=dict)
    threads: int
    layers: tuple[Layer, ...] = ()
    search: Search | None = None
    coverage: Coverage | None = None

    @property
    def reference(self) -> Candidate:
        """The float engine, always the first."""
        return self.decision.candidates[0]

    @property
    def naive(self) -> Candidate | None:
        """Plain MinMax INT8, always the second; None where INT8 was not tried."""
        return self.decision.candidates[1] if len(self.decision.candidates) > 1 else None

    @property
    def chosen(self) -> Candidate | None:
        """What ships."""
        return next((row for row in self.decision.candidates if row.name == self.decision.chosen), None)

    @property
    def int8_share(self) -> float | None:
        """Share of the multiply-adds that compute in INT8; None where they were not counted."""
        total = sum(layer.macs or 0 for layer in self.layers)
        integer = sum(layer.macs or 0 for layer in self.layers if layer.precision == "int8")
        return integer / total if total else None


def read_report(document: object, where: str) -> CompileReport:
    """Check what `compile.json` holds.

    Args:
        document: its content.
        where: named in errors.

    Raises:
        PackageError: it is no such report.
    """
    try:
        return CompileReport.model_validate(document)
    except ValidationError as error:
        raise PackageError(f"{where}: {complaints_of(error)}; compile the package again") from error
