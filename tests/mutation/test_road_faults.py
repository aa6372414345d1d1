"""Faults on the way from a trained model to an engine, and in what it is judged with, on the bundled drive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from perception.package import EnginePackage
from safety_gates.case import Case
from safety_gates.evidence import Shelf
from safety_gates.verdict import Outcome
from tests.mutation.models import blind_below, coin, confused, convolution_weights, harmed, shifted_rows
from tests.mutation.road import FRAMES, MODEL, Scene, naive, sample_package, sample_scene, sample_spec, verdicts
from tests.mutation.road import with_decoding as decoded
from tests.mutation.table import Caught, check_page

FLOAT = MODEL.read_bytes()
LAYERS = convolution_weights(FLOAT)
HEADS = ("head8", "head16", "head32")
CLAIMS = (
    *("accuracy.ap50", "accuracy.worst_class", "accuracy.vulnerable", "accuracy.repeats", "regression.reference"),
    *("slices.loss", "parity.agreement", "parity.ghosts", "parity.scores", "parity.boxes"),
    *("temporal.flicker", "temporal.identity"),
)
DUSK = 96.5  # mean grey of the pictures in the middle of the stretch


@dataclass(frozen=True, slots=True)
class Bench:
    """What a fault is planted in."""

    scene: Scene
    folder: Path

    def engine(self, content: bytes) -> tuple[EnginePackage, Scene]:
        """The scene with a package of another engine."""
        return sample_package(self.folder / "package", engine=content), self.scene

    def spec(self, **picture: object) -> tuple[EnginePackage, Scene]:
        """The scene with a package that feeds its engine otherwise."""
        return sample_package(self.folder / "package", spec=sample_spec(**picture)), self.scene

    def decoding(self, **fields: object) -> tuple[EnginePackage, Scene]:
        """The scene with a package that reads its engine otherwise."""
        return sample_package(self.folder / "package", spec=decoded(**fields)), self.scene

    def judged_with(self, harm: Callable[[Scene], Scene]) -> tuple[EnginePackage, Scene]:
        """A right package, judged with a harmed copy of the scene."""
        return sample_package(self.folder / "package"), harm(self.scene.copy(self.folder / "harmed"))


def _scaled(name: str, factor: float) -> bytes:
    return harmed(FLOAT, {name: lambda weights: weights * np.float32(factor)})


def _in_every_head(part: str, change: Callable[[np.ndarray], np.ndarray]) -> bytes:
    return harmed(FLOAT, {f"{head}.{part}.{kind}": change for head in HEADS for kind in ("weight", "bias")})


def _four_bits(weights: np.ndarray) -> np.ndarray:
    step = np.abs(weights).max() / 7
    return (np.round(weights / step) * step).astype(np.float32)


def _late(lines: list[dict[str, object]]) -> None:
    objects = [line["objects"] for line in lines]
    for position, line in enumerate(lines):
        line["objects"] = objects[max(0, position - 12)]


def _swapped_names(lines: list[dict[str, object]]) -> None:
    names = {"car": "pedestrian", "pedestrian": "car"}
    for line in lines:
        for each in line["objects"]:
            each["class"] = names.get(each["class"], each["class"])


SHUFFLED = np.random.default_rng(0).permutation(FRAMES).tolist()
Plant = Callable[[Bench], tuple[EnginePackage, Scene]]
FAULTS: dict[tuple[str, str], Plant] = {
    ("weights of one layer zeroed", "regression.reference"): lambda b: b.engine(_scaled(LAYERS[12], 0)),
    ("weights of one layer tripled", "parity.boxes"): lambda b: b.engine(_scaled(LAYERS[20], 3)),
    ("weights of one layer halved", "parity.agreement"): lambda b: b.engine(_scaled(LAYERS[12], 0.5)),
    ("all weights in 4 bits", "regression.reference"): lambda b: b.engine(
        harmed(FLOAT, dict.fromkeys(LAYERS, _four_bits))
    ),
    ("naive MinMax INT8", "regression.reference"): lambda b: b.engine(naive(b.scene, b.folder)),
    ("class order swapped in the engine", "accuracy.worst_class"): lambda b: b.engine(
        _in_every_head("kind", lambda array: array[[2, 1, 0, 3]])
    ),
    ("the channel of pedestrians dead", "slices.loss"): lambda b: b.engine(
        harmed(FLOAT, {f"{head}.kind.bias": lambda bias: bias - np.float32([0, 0, 30, 0]) for head in HEADS})
    ),
    ("the head of small objects dead", "slices.loss"): lambda b: b.engine(
        harmed(FLOAT, {"head8.object.bias": lambda bias: bias - np.float32(30)})
    ),
    ("boxes a third too large", "parity.boxes"): lambda b: b.engine(
        harmed(FLOAT, {f"{head}.box.bias": lambda bias: bias + np.float32([0, 0, 0.29, 0.29]) for head in HEADS})
    ),
    ("scores shifted", "parity.scores"): lambda b: b.engine(
        harmed(FLOAT, {f"{head}.object.bias": lambda bias: bias - np.float32(1.5) for head in HEADS})
    ),
    ("blind at dusk", "slices.loss"): lambda b: b.engine(blind_below(FLOAT, mean=DUSK)),
    ("half of the frames lost in the engine", "temporal.flicker"): lambda b: b.engine(coin(FLOAT)),
    ("classes mixed up on half of the frames", "temporal.identity"): lambda b: b.engine(
        confused(FLOAT, columns=[0, 1, 2, 3, 4, 7, 6, 5, 8])
    ),
    ("RGB for BGR", "regression.reference"): lambda b: b.spec(colour="RGB"),
    ("picture one pixel row too low", "parity.boxes"): lambda b: b.engine(shifted_rows(FLOAT, 1)),
    ("pixels divided by 255 twice", "accuracy.ap50"): lambda b: b.spec(scale=1 / 255),
    ("mean subtracted that was not in training", "parity.agreement"): lambda b: b.spec(mean=(40.0, 40.0, 40.0)),
    ("nearest neighbour for linear resizing", "parity.boxes"): lambda b: b.spec(interpolation="nearest"),
    ("NMS that suppresses nothing", "parity.ghosts"): lambda b: b.decoding(nms_iou=0.95),
    ("NMS that suppresses neighbours", "parity.agreement"): lambda b: b.decoding(nms_iou=0.05),
    ("score threshold too high", "parity.agreement"): lambda b: b.decoding(score_threshold=0.6),
    ("score threshold too low", "parity.ghosts"): lambda b: b.decoding(score_threshold=0.05),
    ("frames shuffled against labels", "accuracy.vulnerable"): lambda b: b.judged_with(lambda s: s.reorder(SHUFFLED)),
    ("frames in no order", "temporal.identity"): lambda b: b.judged_with(lambda s: s.reorder(SHUFFLED)),
    ("labels 0.4 s late", "accuracy.vulnerable"): lambda b: b.judged_with(lambda s: s.relabel(_late)),
    ("names of two classes swapped in the labels", "accuracy.worst_class"): lambda b: b.judged_with(
        lambda s: s.relabel(_swapped_names)
    ),
    ("pictures mirrored, labels not", "accuracy.ap50"): lambda b: b.judged_with(
        lambda s: s.repaint(lambda _, pixels: pixels[:, ::-1])
    ),
    ("every third picture black", "temporal.flicker"): lambda b: b.judged_with(
        lambda s: s.repaint(lambda position, pixels: pixels * (position % 3 != 2))
    ),
    ("an evaluation picture twice", "accuracy.repeats"): lambda b: b.judged_with(
        lambda s: s.reorder([0, 0, *range(2, FRAMES)])
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The scene, the float package, a shelf for all, and the table as it grows."""
    folder = tmp_path_factory.mktemp("road")
    return sample_scene(folder / "scene"), sample_package(folder / "float"), Shelf(folder / "evidence"), {}


def _judged(place, package, scene):
    case = Case(package, scene.drive, labels=scene.labels, class_map=scene.class_map, reference=place[1])
    return verdicts(case, place[2], CLAIMS)


@pytest.fixture(scope="module")
def twin(place, tmp_path_factory):
    """What every claim says of the unharmed package."""
    return _judged(place, sample_package(tmp_path_factory.mktemp("twin") / "twin"), place[0])


@pytest.mark.parametrize(("fault", "aimed"), FAULTS)
def test_the_gate_catches_the_fault_and_passes_the_unharmed_twin(place, twin, tmp_path, fault, aimed):
    found = _judged(place, *FAULTS[fault, aimed](Bench(place[0], tmp_path)))
    caught = [claim for claim, verdict in found.items() if verdict.outcome is Outcome.FAILED]
    limit = found[aimed].requirement.limit
    says = f"{found[aimed].measured.got:.3f}, limit {limit:g}"
    others = sorted({claim.partition(".")[0] for claim in caught if claim != aimed})
    place[3][fault] = Caught(fault, aimed, says, others)
    assert aimed in caught, (found[aimed].measured, caught)
    assert twin[aimed].outcome is Outcome.PASSED, (twin[aimed].measured, twin[aimed].why)


def test_the_table_in_the_docs_names_every_fault(place):
    if len(place[3]) < len(FAULTS):
        pytest.skip("not every fault was planted in this run")
    check_page("What the model sees", place[3])
