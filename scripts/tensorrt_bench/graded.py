"""Hold what the GPU said of the labelled pictures against their labels, and file all claims under docs/results.

python -m scripts.tensorrt_bench.graded OUT [OUT ...]      (of several calls of the benchmark: a later row counts)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compile.accuracy import AGREED_SCORE, agreement, match_detections
from compile.class_map import ClassMap
from compile.grading import read_labels
from perception.files import json_bytes, write_atomically
from perception.model_spec import ModelSpec
from perception.results import Detections
from perception.sources.table import open_source
from scripts.tensorrt_bench.prepare import DATA, ROOT

KITTI = DATA / "labelled" / "kitti_dev"
COMMAND = "python -m scripts.tensorrt_bench.graded OUT"
WORST_AP_CHANGE, LEAST_AGREEMENT = 0.005, 0.995


def main(outs: Sequence[Path]) -> None:
    """Add rows to those of every OUT/tensorrt.json and write docs/results/tensorrt.json."""
    claims: dict[str, Any] = {"conditions": {}, "rows": []}
    for out in outs:
        found = json.loads((out / "tensorrt.json").read_text())
        claims["conditions"] |= found["conditions"]
        claims["rows"] += found["rows"]
        for path in sorted(out.glob("*.json")):
            spec_path = ROOT / "tests" / "specs" / f"{path.stem}.yaml"
            if spec_path.is_file():
                claims["rows"] += rows_of(path, ModelSpec.load(spec_path))
    claims["rows"] = list({row["id"]: row for row in claims["rows"]}.values())
    write_atomically(ROOT / "docs" / "results" / "tensorrt.json", json_bytes(claims))


def rows_of(path: Path, spec: ModelSpec) -> list[dict[str, Any]]:
    """Change of AP50 of each side, and agreement of the GPU's own way with the CPU's, for one detector."""
    frames = list(open_source(KITTI / "image_2").frames())
    labels, class_map = read_labels(spec, KITTI), ClassMap.load(ROOT / "tests" / "specs" / "kitti_classes.yaml")
    said = {side: [_read(by[frame.name]) for frame in frames] for side, by in json.loads(path.read_text()).items()}
    ap50 = {
        side: match_detections(each, labels.of_all(frames), class_map=class_map, classes=spec.classes).ap50()
        for side, each in said.items()
    }
    rows = [
        _row(f"{spec.name}, {side}: AP50 apart from float's {ap50['float']:.3f}", abs(ap50[side] - ap50["float"]),
             limit=WORST_AP_CHANGE, unit="AP50", samples=len(frames))
        for side in said if side != "float"
    ]  # fmt: skip
    sure = {side: [each.at_least(AGREED_SCORE) for each in found] for side, found in said.items()}
    for side in said:
        if side.endswith(" on the GPU"):
            agreed = agreement(sure[side.removesuffix(" on the GPU")], sure[side])
            name = f"{spec.name}, {side}: agrees with the same plan behind the CPU's preparation"
            limit = LEAST_AGREEMENT if side.startswith("fp32") else None
            rows.append(_row(name, agreed.share, limit=limit, unit="share", samples=agreed.reference.sum()))
            rows[-1]["better"] = "higher"
    return rows


def _row(name: str, value: float, *, limit: float | None, unit: str, samples: int) -> dict[str, Any]:
    told = {"id": name, "value": float(value), "limit": limit, "unit": unit, "better": "lower"}
    return {**told, "samples": int(samples), "command": COMMAND}


def _read(found: dict[str, Any]) -> Detections:
    boxes_px = np.array(found["boxes_px"], np.float32).reshape(-1, 4)
    return Detections(boxes_px, np.array(found["scores"], np.float32), np.array(found["class_ids"], np.int32))


if __name__ == "__main__":
    main([Path(out) for out in sys.argv[1:]])
