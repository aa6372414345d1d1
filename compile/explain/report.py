"""`compile.json` read back: typed, checked once, and with every key that older packages lack allowed to be absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import PackageError

FLOAT = "float"

Document = TypeVar("Document", bound=BaseModel)


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
    """One layer of the engine that ships.

    Attributes:
        why: it has this precision.
        macs: multiply-adds.
        loss: noise power over signal power of its output in INT8; None where it was not measured.
        range_rules: tensor → how its range was chosen.
        time_us, time_us_float: in the engine that ships, and in float.
    """

    node: str
    op_type: str = ""
    precision: Literal["int8", "float"]
    why: str = ""
    macs: int = 0
    loss: float | None = None
    range_rules: dict[str, str] = Field(default_factory=dict)
    weight_rounding: str = ""
    time_us_float: float | None = None
    time_us: float | None = None


class SearchPoint(_Read):
    """One engine that the search measured."""

    name: str
    loss: float
    agreement: float
    time_ratio: float | None
    on_front: bool = False
    float_layers: int


class FinalCheck(_Read):
    """What ships, graded once more on frames that chose nothing."""

    frames: int
    loss: float
    agreement: float


class Search(_Read):
    """How the precision of each layer was searched."""

    metric: str
    points: tuple[SearchPoint, ...] = ()
    seconds: float
    cached: bool = False
    final_check: FinalCheck | None = None


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
    """All of `compile.json`, and what else the page may be given.

    Attributes:
        time_by_operator: operator → share of the time of the engine that ships.
        layer_losses: recipe → layer → loss, from before layers were reported whole.
        build: the manifest's, where it was handed over.
    """

    format: Literal["tollgate-compile/1"]
    decision: Decision
    fusion: Fusion
    parity: Parity
    kept_float: dict[str, str] = Field(default_factory=dict)
    cannot_be_quantized: dict[str, str] = Field(default_factory=dict)
    layer_losses: dict[str, dict[str, float]] = Field(default_factory=dict)
    time_by_operator: dict[str, float] = Field(default_factory=dict)
    evaluation: Evaluation
    machine: dict[str, JsonValue] = Field(default_factory=dict)
    threads: int
    layers: tuple[Layer, ...] = ()
    search: Search | None = None
    mac_share_int8: float | None = None
    calibration_coverage: Coverage | None = None
    build: dict[str, JsonValue] = Field(default_factory=dict)

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
    def all_layers(self) -> tuple[Layer, ...]:
        """The layers in the network's order; of an older report those whose loss it holds, the greatest first."""
        if self.layers or not self.layer_losses:
            return self.layers
        losses = next(iter(self.layer_losses.values()))
        kept = {**self.cannot_be_quantized, **self.kept_float}
        ordered = sorted(losses.items(), key=lambda item: -item[1])
        return tuple(
            Layer(node=node, loss=loss, precision=FLOAT if node in kept else "int8", why=kept.get(node, ""))
            for node, loss in ordered
        )


class CalibrationFrame(_Read):
    """One frame that calibrated."""

    name: str


class Calibration(_Read):
    """`calibration.json`; see `compile.calibration.CalibrationSet`."""

    selection: str
    considered: int
    left_out: dict[str, int]
    recordings: tuple[Recording, ...]
    frames: tuple[CalibrationFrame, ...]


def read_report(document: Mapping[str, JsonValue], where: str) -> CompileReport:
    """Check what `compile.json` holds.

    Args:
        document: its content.
        where: named in errors.

    Raises:
        PackageError: it is no such report.
    """
    return _checked(CompileReport, document, where)


def read_calibration(document: Mapping[str, JsonValue], where: str) -> Calibration:
    """Check what `calibration.json` holds.

    Raises:
        PackageError: it is no such document.
    """
    return _checked(Calibration, document, where)


def _checked(kind: type[Document], document: object, where: str) -> Document:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise PackageError(f"{where}: {complaints_of(error)}; compile the package again") from error
