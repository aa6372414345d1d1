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
from typing import TYPE_CHECKING

from scripts.tensorrt_bench.book import Book, gpu_state
from scripts.tensorrt_bench.builds import CACHE, Building, build_all
from scripts.tensorrt_bench.cases import COMPATIBLE, PRECISIONS, Case, cases_in
from scripts.tensorrt_bench.compiled import compiled

if TYPE_CHECKING:
    from perception.engines.tensorrt import TensorRtEngine

SAMPLE_DRIVE = Path(__file__).resolve().parents[2] / "data" / "samples" / "drive"
ALL_PLANS = (*PRECISIONS, COMPATIBLE)
STEPS = (
    "parity", "compile", "build", "compare", "pictures", "agreement", "latency", "cameras", "tails", "armed", "loading",
    "drive", "driven", "lean", "device",
)  # fmt: skip


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
    parser.add_argument("--package", type=Path, help="package for this machine, for the steps driven and device")
    parser.add_argument("--device-level", type=int, default=0, help="builder level of the step device")
    parser.add_argument(
        "--tail-rounds", type=int, default=20, help="turns of each side in the step tails, 500 frames each"
    )
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

    def tails() -> None:
        from scripts.tensorrt_bench import sides
        from scripts.tensorrt_bench.tails import tails

        engine, batch_plan = open_plan(main_case.plan(best())), main_case.plan(main_case.batch_of(best()))
        chosen = [sides.floor(engine), *(sides.one_camera(engine, main_case, memory) for memory in sides.MEMORIES)]
        chosen.append(sides.six_forked(engine, main_case, "mapped"))
        if batch_plan.is_file():
            batch = open_plan(batch_plan)
            chosen += [sides.six_in_a_batch(batch, main_case, memory) for memory in sides.MEMORIES]
        tails(chosen, engine.device, book, rounds=options.tail_rounds, limit_s=options.latency_s)

    def armed() -> None:
        from scripts.tensorrt_bench.armed import armed
        from scripts.tensorrt_bench.sides import one_camera

        engine = open_plan(main_case.plan(best()))
        armed(one_camera(engine, main_case, "mapped"), engine.device, book, count=options.samples // 5)
        engine.close()

    def agreement() -> None:
        from scripts.tensorrt_bench.agreement import agreed

        for case in ordered:
            if case.spec.task == "detection" and case.plan("fp32").is_file():
                agreed(case, book)

    def given_package() -> Path:
        if options.package is None:
            raise ValueError("steps driven and device: got no package for this machine; give --package")
        return Path(options.package)

    def drives() -> None:
        from scripts.tensorrt_bench.driven import driven

        for cameras in (1, 6):
            driven(given_package(), SAMPLE_DRIVE, book, cameras=cameras)

    def device() -> None:
        from perception.agent.index import CommitRule, OnDeviceBuild, Tolerance
        from safety_gates.publishing.releases import Terms
        from scripts.tensorrt_bench.device import built_on_device

        limits = Tolerance(relative_error=0.02, disagreement=0.05, latency_p90_ms=5)
        build = OnDeviceBuild(kind="tensorrt", options={"level": options.device_level})
        built_on_device(given_package(), SAMPLE_DRIVE, book, Terms(limits, CommitRule(), build))

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
        "tails": tails,
        "armed": armed,
        "agreement": agreement,
        "driven": drives,
        "device": device,
    }


def open_plan(path: Path) -> TensorRtEngine:
    """An engine from a plan that this benchmark built."""
    from perception.engines.tensorrt import TensorRtEngine

    return TensorRtEngine(path.read_bytes())


if __name__ == "__main__":
    raise SystemExit(main())
