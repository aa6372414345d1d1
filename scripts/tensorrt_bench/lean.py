"""A plan built to open with newer releases, run by TensorRT's lean runtime of one, after its release was verified.

Such a plan carries code for the host, which runs as soon as it is opened. So it is opened from the bytes of a verified
release and from nothing else; a release with one bit changed must end before TensorRT sees a byte.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, Signer

from hw_profiles.profile import load_profile
from perception.files import json_bytes, sha256_of_file
from perception.package import EngineEntry, write_package
from perception.release_client import PAYLOAD_TYPE, subject_name
from scripts.tensorrt_bench.book import Book
from scripts.tensorrt_bench.cases import COMPATIBLE, Case
from scripts.tensorrt_bench.compiled import profile_here
from scripts.tensorrt_bench.lean_worker import REFUSED

LEAST_DB = 40.0


def run_in_lean_runtime(case: Case, book: Book, site: Path) -> None:
    """Sign a release around the compatible plan, run it with the lean runtime in `site`, and show a forged one refused.

    Args:
        case: the model.
        book: of results.
        site: folder with tensorrt_lean_bindings and tensorrt_lean_libs.
    """
    from perception.engines.tensorrt import TensorRtEngine

    plan = case.plan(COMPATIBLE).read_bytes()
    engine = TensorRtEngine(plan)
    rng = np.random.default_rng(7)
    feeds = {t.name: rng.uniform(0, 255, t.shape).astype(t.dtype) for t in engine.inputs}
    expected = {name: value.copy() for name, value in engine.infer(feeds).items()}
    engine.close()
    folder, signer = book.out / "lean", CryptoSigner.generate_ed25519()
    folder.mkdir(exist_ok=True)
    release = write_release(folder / "release", plan, case, signer)
    write_key(folder / "key.json", signer)
    np.savez(folder / "feeds.npz", **feeds)  # type: ignore[arg-type]
    done = _in_lean_runtime(folder, site)
    print(f"  {done.stdout.strip()[-300:]}", flush=True)
    if done.returncode:
        raise RuntimeError(f"the lean runtime ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}")
    with np.load(folder / "answers.npz") as answers:
        worst = min(_db(expected[name], answers[name]) for name in answers.files)
    words = f"{case.name}: plan of TensorRT 8.6 in {done.stdout.split(':')[0]}, signal over difference, worst output"
    book.row(words, worst, unit="dB", limit=LEAST_DB, samples=len(expected), better="higher")
    _flip_one_bit(release / subject_name("engine.plan"))
    (folder / "answers.npz").unlink()
    forged = _in_lean_runtime(folder, site)
    refused = forged.returncode == REFUSED and not (folder / "answers.npz").exists()
    print(f"  forged: {forged.stdout.strip()[-300:]}", flush=True)
    book.row(f"{case.name}: forged plans that the lean runtime opened", 0 if refused else 1, unit="plans", limit=0,
             samples=1)  # fmt: skip


def write_release(folder: Path, plan: bytes, case: Case, signer: CryptoSigner) -> Path:
    """A signed release of a plan, as `perception.release_client` reads it; it claims nothing else."""
    profile = load_profile(profile_here())
    files = {"engine.plan": plan, "model_spec.yaml": case.spec.to_yaml().encode()}
    files["profile.yaml"] = profile.to_yaml().encode()
    folder.mkdir(exist_ok=True)
    entry = EngineEntry(kind="tensorrt", file="engine.plan", precision="fp16")
    write_package(folder / "package", files, name=case.name, engine=entry, build={})
    return sign_release(folder, signer)


def sign_release(folder: Path, signer: Signer) -> Path:
    """Sign the package that lies in a folder, with nothing behind it but this benchmark."""
    for name in ("judgement.json", "report.html"):
        (folder / name).write_text('{"signed": "by a benchmark"}')
    parts = [_resource(folder, subject_name(path.name)) for path in sorted((folder / "package").iterdir())]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": parts,
        "predicateType": "https://in-toto.io/attestation/test-result/v0.1",
        "predicate": {
            "result": "PASSED",
            "configuration": [_resource(folder, name) for name in ("judgement.json", "report.html")],
            "passedTests": ["signed by the benchmark"],
        },
    }
    envelope = Envelope(json_bytes(statement), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    (folder / "statement.dsse.json").write_bytes(json_bytes(envelope.to_dict()))
    return folder


def write_key(path: Path, signer: CryptoSigner) -> None:
    """The public half, for the worker."""
    path.write_bytes(json_bytes({signer.public_key.keyid: signer.public_key.to_dict()}))


def _resource(folder: Path, name: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256_of_file(folder / name)}}


def _in_lean_runtime(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "scripts.tensorrt_bench.lean_worker",
        str(folder / "release"),
        str(folder / "key.json"),
    ]
    command += [str(folder / "feeds.npz"), str(folder / "answers.npz")]
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=300
    )


def _flip_one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _db(expected: Any, got: Any) -> float:  # noqa: ANN401
    wanted, seen = expected.astype(np.float64), got.astype(np.float64)
    noise = float(((wanted - seen) ** 2).mean())
    return 200.0 if noise == 0 else 10 * float(np.log10((wanted**2).mean() / noise))
