"""`tollgate run` with a package on cameras as it is used: which way frames take, and what each stage costs there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from scripts.tensorrt_bench.book import Book


def driven(package: Path, drive: Path, book: Book, *, cameras: int) -> None:
    """Run a drive whose cameras are those of `drive`, over and over.

    Raises:
        RuntimeError: the run failed.
    """
    recording = _with_cameras(drive, book.out / f"drive_of_{cameras}", cameras)
    command = [sys.executable, "-m", "perception.cli", "run", str(package), str(recording), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):  # 1: a frame was late
        raise RuntimeError(f"tollgate run: ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    told = json.loads(done.stdout)
    book.raw[f"tollgate run, {cameras} cameras"] = told
    print(" ", told.get("way"), flush=True)
    for model in told["models"].values():
        for stage, figures in model["stages_ms"].items():
            name = f"tollgate run, {cameras} cameras, {stage}, p50"
            book.row(name, figures["p50_ms"], unit="ms", samples=figures["samples"])


def _with_cameras(drive: Path, folder: Path, count: int) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fields = yaml.safe_load((drive / "drive.yaml").read_text())
    chosen = [dict(fields["cameras"][number % len(fields["cameras"])]) for number in range(count)]
    for number, camera in enumerate(chosen):
        for name in ("video", "timestamps"):
            file = f"camera{number}.{name}{Path(camera[name]).suffix}"
            shutil.copy(drive / camera[name], folder / file)
            camera[name] = file
        camera["camera_id"] = f"camera{number}"
    fields.pop("labels", None)
    (folder / "drive.yaml").write_text(yaml.safe_dump({**fields, "cameras": chosen}))
    return folder
