"""The steps of one model, each run in a process of its own: prepare, build a contender, judge it, time them all."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from compile.accuracy import LOWEST_SCORE
from compile.grading import read_labels
from compile.timing import Latency, time_side_by_side
from perception.agreement import AGREED_SCORE
from perception.engines.engine import Engine, Tensors
from perception.engines.onnxrt import OnnxRuntimeEngine
from tests.benchmarks.int8.cases import Case, case_named
from tests.benchmarks.int8.contender import ENGINE_FILES, FLOAT, OPENVINO_FLOAT, EngineKind, RefusedError
from tests.benchmarks.int8.grades import Reports, Seen, grade, results_of
from tests.benchmarks.int8.material import THREADS, Feeds, Material, frames_of, prepare
from tests.benchmarks.int8.table import contender_named
from tests.benchmarks.int8.work import Document, Work, read, write

REPORTS = "reports.pickle.gz"
FLOAT_AGAIN = "float again"


def build(case: Case, work: Work, name: str) -> Document:
    """Build one contender; a failure is a document too."""
    folder = work.of_contender(case.name, name)
    folder.mkdir(parents=True, exist_ok=True)
    material = Material(case, work.of_case(case.name))
    started = time.perf_counter()
    try:
        built = contender_named(name).build(material, folder)
    except RefusedError as refused:
        return {"status": "refused", "why": str(refused), **_cost(started)}
    except Exception as error:  # noqa: BLE001  (whatever a peer raises is its result)
        return {"status": "failed", "why": first_line(error), **_cost(started)}
    engine = folder / ENGINE_FILES[built.kind]
    return {
        "status": "built",
        "kind": built.kind,
        "int8_share": built.int8_share,
        "note": built.note,
        "sha256": hashlib.sha256(engine.read_bytes()).hexdigest(),
        **_cost(started),
    }


def judge(case: Case, work: Work, name: str) -> Document:
    """Run one engine over everything that is graded; float's reports are kept for the others."""
    material = Material(case, work.of_case(case.name))
    spec = material.spec()
    built = read(work.of_contender(case.name, name) / "build.json")
    try:
        engine = open_engine(work.of_contender(case.name, name), built["kind"], threads=THREADS)
        reports = _reports(case, work, material, engine)
    except Exception as error:  # noqa: BLE001  (an engine that was built and does not run is a result)
        return {"status": "failed", "why": first_line(error)}
    kept = work.of_contender(case.name, FLOAT) / REPORTS
    if name == FLOAT:
        kept.write_bytes(gzip.compress(pickle.dumps(reports), compresslevel=1))
    reference = pickle.loads(gzip.decompress(kept.read_bytes()))
    labels = read_labels(spec, case.labels)
    return {"status": "graded", **grade(reference, reports, spec, labels, material.class_map())}


def time_all(case: Case, work: Work, threads: int, budget_s: float, names: list[str]) -> Document:
    """Time engines in turn, float twice among them."""
    material = Material(case, work.of_case(case.name))
    feeds = next(iter(Feeds(material.spec(), material.validation)))
    pinned = _pinning(case, work, feeds, threads)
    with ExitStack() as stack:
        jobs, failed = {}, {}
        for name in (*names, FLOAT_AGAIN):
            folder = work.of_contender(case.name, FLOAT if name == FLOAT_AGAIN else name)
            try:
                engine = open_engine(folder, read(folder / "build.json")["kind"], threads=threads, pinned=pinned)
                engine.infer(feeds)
            except Exception as error:  # noqa: BLE001  (the others are timed all the same)
                failed[name] = first_line(error)
                continue
            stack.callback(engine.close)
            jobs[name] = lambda engine=engine: engine.infer(feeds)
        times = time_side_by_side(jobs, reference=FLOAT, budget_s=budget_s, advance=lambda: None)
    latencies = {name: _latency_document(latency) for name, latency in times.items()}
    return {"names": names, "openvino_pinned": pinned, "latencies": latencies, "failed": failed}


def open_engine(folder: Path, kind: EngineKind, *, threads: int, pinned: bool = True) -> Engine:
    """Open what a contender built."""
    path = folder / ENGINE_FILES[kind]
    if kind == "openvino":
        from tests.benchmarks.int8.openvino_engine import OpenVinoEngine  # its memory is not the others'

        return OpenVinoEngine.from_file(path, threads=threads, pinned=pinned)
    return OnnxRuntimeEngine(path.read_bytes(), threads=threads, integers=kind == "onnxrt")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def peak_bytes() -> int:
    """Most memory this process ever held.

    Not `getrusage`: its figure begins with what the parent held when it started this process.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def _cost(started: float) -> Document:
    return {"seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}


def _reports(case: Case, work: Work, material: Material, engine: Engine) -> Reports:
    spec, count, seen = material.spec(), work.settings.graded_frames, []

    def noted() -> object:
        for frame in frames_of(case.labelled, count):
            seen.append(Seen(frame.camera_id, frame.frame_id, frame.name))
            yield frame

    labelled = results_of(spec, engine, noted(), LOWEST_SCORE)
    if not case.unlabelled:
        return Reports(seen, labelled, labelled)
    compared = [
        result for path in case.unlabelled for result in results_of(spec, engine, frames_of(path, count), AGREED_SCORE)
    ]
    return Reports(seen, labelled, compared)


def _pinning(case: Case, work: Work, feeds: Tensors, threads: int) -> bool:
    path = work.of_contender(case.name, OPENVINO_FLOAT) / ENGINE_FILES["openvino"]
    if not path.is_file():
        return True
    from tests.benchmarks.int8.openvino_engine import faster_pinning

    return faster_pinning(path, feeds, threads=threads)


def _latency_document(latency: Latency) -> Document:
    ratio = latency.ratio
    return {
        "p50_ms": latency.p50_ms,
        "runs": latency.recorder.samples,
        "ratio": ratio.middle,
        "ratio_low": ratio.low,
        "ratio_high": ratio.high,
    }


def main(arguments: list[str]) -> int:
    """`STAGE CASE WORK [ARGUMENT …]`; the stage's document lies at its path afterwards."""
    stage, case_name, folder, *more = arguments
    case, work = case_named(case_name), Work.open(Path(folder))
    if stage == "prepare":
        prepare(case, work)
    elif stage == "build":
        write(work.of_contender(case.name, more[0]) / "build.json", build(case, work, more[0]))
    elif stage == "judge":
        write(work.of_contender(case.name, more[0]) / "judge.json", judge(case, work, more[0]))
    else:
        document = time_all(case, work, int(more[0]), float(more[1]), more[2:])
        write(work.of_case(case.name) / f"time_{more[0]}.json", document)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
