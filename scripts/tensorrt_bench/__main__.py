"""Measure the TensorRT path on this machine's GPU.

    python -m scripts.tensorrt_bench --models FOLDER --plans FOLDER --out OUT --main yolox_nano_416

FOLDER holds NAME.onnx, NAME.PRECISION.onnx and NAME.yaml for each model, `frames` (and `frames_segmentation`) with
pictures, and clips: `python -m scripts.tensorrt_bench.prepare` makes it. Writes OUT/tensorrt.json (claims and
conditions, as docs/results has them), OUT/raw.json (distributions), OUT/trace.json (for Perfetto) and what every side
says of every picture, which `python -m scripts.tensorrt_bench.graded` holds against labels. Sides of a comparison take
turns in one run. Plans stay in --plans and are not built twice.
"""

from __future__ import annotations

import argparse
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from scripts.tensorrt_bench.book import Book, gpu_state
from scripts.tensorrt_bench.builds import CACHE, Building, build_all
from scripts.tensorrt_bench.cases import COMPATIBLE, PRECISIONS, Case, cases_in
from scripts.tensorrt_bench.compiled import compiled

ALL_PLANS = (*PRECISIONS, COMPATIBLE)
STEPS = ("parity", "compile", "build", "compare", "pictures", "latency", "cameras", "loading", "drive", "lean")


def main() -> int:
    """Run the steps; one that fails is told and the others go on."""
    options = parsed()
    book = Book(options.out)
    cases = cases_in(options.models, options.plans)
    main_case = next(case for case in cases if case.name == options.main)
    print(book.conditions, flush=True)
    failures = 0
    for name in options.steps:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        try:
            steps(options, book, cases, main_case)[name]()
        except Exception:  # noqa: BLE001  (told below, and counted)
            failures += 1
            traceback.print_exc()
        book.raw.setdefault("gpu", {})[name] = gpu_state()
        book.write()
        print(f"   {time.perf_counter() - started:.1f} s; {gpu_state()}", flush=True)
    return failures


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of models and pictures")
    parser.add_argument("--plans", type=Path, required=True, help="folder that keeps plans")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--main", required=True, help="name of the model whose frames are timed")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="what to do")
    parser.add_argument(
        "--plans-of-main",
        nargs="*",
        choices=ALL_PLANS,
        default=PRECISIONS,
        help="its plans, in the order to build them",
    )
    parser.add_argument("--others", nargs="*", choices=PRECISIONS, default=PRECISIONS, help="plans of the other models")
    parser.add_argument("--level", type=int, default=2, help="builder level, 0 to 5")
    parser.add_argument("--build-s", type=float, default=300.0, help="end builds after so long; another call goes on")
    parser.add_argument("--compile-s", type=float, default=240.0, help="time limit of the step compile's search")
    parser.add_argument("--lean", type=Path, help="folder with the lean runtime of a newer TensorRT, for the step lean")
    parser.add_argument("--samples", type=int, default=100_000, help="frames of the main row")
    parser.add_argument("--latency-s", type=float, default=600.0, help="end the main row early after so long")
    return parser.parse_args()


def steps(options: argparse.Namespace, book: Book, cases: list[Case], main_case: Case) -> dict[str, Callable[[], None]]:
    """What each step does; those that run on the GPU in this process import its libraries when their turn comes."""
    ordered = [main_case, *(case for case in cases if case is not main_case)]
    wanted = [(main_case, precision) for precision in options.plans_of_main]
    wanted += [(main_case, main_case.batch_of(each)) for each in options.plans_of_main if each in PRECISIONS]
    wanted += [(case, precision) for precision in options.others for case in ordered[1:]]
    wanted = [(case, precision) for case, precision in wanted if case.model(precision).is_file()]
    how = Building(options.level, options.build_s, options.plans / CACHE)
    clips = sorted(options.models.glob("*.mp4"))

    def parity() -> None:
        from scripts.tensorrt_bench.parity import kernel_parity

        kernel_parity(book)

    def lean() -> None:
        from scripts.tensorrt_bench.lean import run_in_lean_runtime

        if options.lean is None:
            raise ValueError("step lean: got no folder of the runtime; give --lean")
        build_all([(main_case, COMPATIBLE)], book, how)
        run_in_lean_runtime(main_case, book, options.lean)

    def compare() -> None:
        from scripts.tensorrt_bench.latency import plans_compared

        for case in ordered:
            if case.built():
                best = plans_compared(case, book)
                (options.plans / f"{case.name}.best").write_text(best)

    def best() -> str:
        return (options.plans / f"{main_case.name}.best").read_text()

    def latency() -> None:
        from scripts.tensorrt_bench.latency import frame_to_detections

        frame_to_detections(main_case, best(), book, samples=options.samples, limit_s=options.latency_s)

    def cameras() -> None:
        from scripts.tensorrt_bench.cameras import six_cameras

        rounds = max(1, options.samples // 2000)
        six_cameras(main_case, best(), book, rounds=rounds, limit_s=options.latency_s)

    def load() -> None:
        from scripts.tensorrt_bench.loading import loading

        loading(main_case, best(), book)

    def drive() -> None:
        from scripts.tensorrt_bench.drive import overlapped, traced

        for clip in clips:
            overlapped(main_case, best(), clip, book)
        traced(main_case, best(), clips[0], book)

    def pictures() -> None:
        from scripts.tensorrt_bench.pictures import through_everything

        for case in ordered:
            if case.built():
                through_everything(case, book)

    return {
        "parity": parity,
        "compile": lambda: compiled(main_case, book, how, limit_s=options.compile_s),
        "build": lambda: build_all(wanted, book, how),
        "compare": compare,
        "pictures": pictures,
        "latency": latency,
        "cameras": cameras,
        "loading": load,
        "drive": drive,
        "lean": lean,
    }


if __name__ == "__main__":
    raise SystemExit(main())
