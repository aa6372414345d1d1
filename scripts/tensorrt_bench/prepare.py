"""Make the folder that the benchmark runs on, on a machine that has the shared models and recordings.

python -m scripts.tensorrt_bench.prepare --out FOLDER
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from compile.backends.onnxrt import build
from compile.calibration import choose_calibration
from compile.graph import GraphView
from compile.importer import import_model
from compile.job import feeds_of, some_feeds_of
from compile.quantizer import Quantizer
from compile.recipes import RECIPES
from compile.recordings import survey
from compile.rules import RULES
from perception.files import write_atomically
from perception.model_spec import ModelSpec
from scripts.tensorrt_bench.batch import write_batched

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
CALIBRATION = (DATA / "clips" / "driveai_120", DATA / "clips" / "udacity_solidWhiteRight.mp4")
RECIPE_OF = {"int8": "int8-plain-chosen", "int8-equalized": "int8-chosen", "int8-minmax": "int8-minmax"}
CLIPS = ("udacity_solidWhiteRight.mp4", "udacity_vehicle_test_video.mp4")


def main() -> None:
    """Write models, specs, pictures and clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--only", default="*", help="pattern of model names")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    for model in sorted((DATA / "models").glob(f"{options.only}.onnx")):
        _write_model(model, ModelSpec.load(ROOT / "tests" / "specs" / f"{model.stem}.yaml"), out)
        print(model.stem, flush=True)
    shutil.copytree(DATA / "labelled" / "kitti_dev" / "image_2", out / "frames", dirs_exist_ok=True)
    shutil.copytree(DATA / "labelled" / "kitti_dev" / "label_2", out / "labels", dirs_exist_ok=True)
    shutil.copy(ROOT / "tests" / "specs" / "kitti_classes.yaml", out / "classes.yaml")
    road = sorted((DATA / "labelled" / "camvid_day" / "images").iterdir())[::4]
    (out / "frames_segmentation").mkdir(exist_ok=True)
    for picture in road:
        shutil.copy(picture, out / "frames_segmentation")
    for clip in CLIPS:
        shutil.copy(DATA / "clips" / clip, out)


def _write_model(path: Path, spec: ModelSpec, out: Path) -> None:
    """Float and INT8, both as TensorRT is given them."""
    model = import_model(path).model
    write_atomically(out / path.name, build(model))
    write_atomically(out / f"{path.stem}.yaml", spec.to_yaml().encode())
    recordings = choose_calibration(CALIBRATION, survey(CALIBRATION)).recordings
    quantizer = Quantizer(
        graph=GraphView.of(model),
        rules=RULES["tensorrt"],
        feeds=lambda: feeds_of(spec, recordings),
        some_feeds=lambda count: some_feeds_of(spec, recordings, count),
        keep_float={},
        weight_bits=8,
        threads=2,
    )
    recipes = {recipe.name: recipe for recipe in RECIPES["tensorrt"]}
    chosen = {precision: recipes[name] for precision, name in RECIPE_OF.items()}
    quantizer.observe(chosen.values())
    for precision, recipe in chosen.items():
        write_atomically(out / f"{path.stem}.{precision}.onnx", quantizer.candidate(recipe).content)
    if spec.decoding.decoder == "yolox":  # cameras are measured with its candidates
        for written in (path.stem, *(f"{path.stem}.{precision}" for precision in chosen)):
            write_batched(out / f"{written}.onnx")


if __name__ == "__main__":
    main()
