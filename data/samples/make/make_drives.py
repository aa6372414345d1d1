"""Render the sample drive and the calibration drive.

python data/samples/make/make_drives.py --out data/samples

Frames are kept losslessly in --work, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import yaml
from roadsim.actors import CLASSES
from roadsim.render import Seen, expose
from roadsim.scenes import (
    CALIBRATION_SEED,
    DRIVE_SEED,
    HEIGHT,
    MOUNTS,
    WIDTH,
    Drive,
    calibration_drive,
    lens_for,
    sample_drive,
)

FORMAT = "tollgate-drive/1"
LICENCE = "Apache-2.0"
START_NS = 1_790_000_000_000_000_000
JITTER_NS = 22_000
SKEW_NS = {"front": 0, "front_right": 1_430_000}
GLANCES = {"front": 3, "front_right": 5}
LEAST_HEIGHT_PX = 8.0
MOST_OCCLUSION = 0.98


@dataclass(frozen=True, slots=True)
class Recording:
    """What is recorded: how long, how often, and which scene."""

    name: str
    seed: int
    duration_s: float
    fps_hz: float
    labelled: bool
    crf: float

    @property
    def frames(self) -> int:
        """How many frames each camera takes."""
        return round(self.duration_s * self.fps_hz)


RECORDINGS = (
    Recording("drive", DRIVE_SEED, 10.0, 30.0, labelled=True, crf=30.0),
    Recording("calibration", CALIBRATION_SEED, 20.0, 2.0, labelled=False, crf=34.0),
)


@lru_cache(maxsize=1)
def scene_of(name: str) -> Drive:
    """The recording's scene, made once a process."""
    cv2.setNumThreads(1)
    return sample_drive() if name == "drive" else calibration_drive(20.0)


def captured_ns(recording: Recording, camera_id: str) -> np.ndarray:
    """Capture instants (frames,) int64: the period with some jitter, and the second camera a little later."""
    rng = np.random.default_rng([recording.seed, 41, list(MOUNTS).index(camera_id)])
    period = 1e9 / recording.fps_hz
    jitter = np.clip(rng.normal(0, JITTER_NS, recording.frames), -80_000, 80_000)
    drift = np.cumsum(rng.normal(0, 900, recording.frames)) if SKEW_NS[camera_id] else 0.0
    return np.rint(START_NS + SKEW_NS[camera_id] + period * np.arange(recording.frames) + jitter + drift).astype(
        np.int64
    )


def render_frame(job: tuple[Recording, str, int, int, Path]) -> Path:
    """One frame as PNG with its labels beside it, unless both are there."""
    recording, camera_id, index, instant_ns, folder = job
    picture_path, label_path = folder / f"{index:04d}.png", folder / f"{index:04d}.json"
    if picture_path.exists() and label_path.exists():
        return picture_path
    drive, t_s = scene_of(recording.name), (instant_ns - START_NS) * 1e-9
    picture, seen = expose(
        drive.scene,
        lens_for(WIDTH),
        MOUNTS[camera_id],
        t_s=t_s,
        air=drive.air(t_s),
        glances=GLANCES[camera_id],
        frame=index,
    )
    spell = drive.spell(t_s)
    line = {
        "camera_id": camera_id,
        "frame_id": index,
        "captured_ns": instant_ns,
        "light": spell.light,
        "weather": spell.weather,
        "objects": [label(one) for one in seen if visible(one)],
    }
    write_whole(label_path, json.dumps(line, separators=(",", ":")).encode())
    write_whole(picture_path, cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    return picture_path


def visible(one: Seen) -> bool:
    """Whether somebody could see it: at least LEAST_HEIGHT_PX high and not behind something as a whole."""
    return one.box[3] - one.box[1] >= LEAST_HEIGHT_PX and one.occlusion < MOST_OCCLUSION


def label(one: Seen) -> dict[str, object]:
    """One object of a line of labels.jsonl."""
    return {
        "track_id": one.track_id,
        "class": one.kind,
        "box": [round(v, 1) for v in one.box],
        "distance_m": round(one.distance_m, 1),
        "truncation": round(one.truncation, 2),
        "occlusion": round(max(one.occlusion, 0.0), 2),
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def encode(job: tuple[Path, list[Path], Recording]) -> None:
    """H.264, closed groups of pictures of one second, index in front."""
    path, pictures, recording = job
    rate = round(recording.fps_hz)

    def into(unfinished: Path) -> None:
        with av.open(str(unfinished), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            options = {
                "crf": str(recording.crf),
                "preset": "slower",
                "x264-params": "open-gop=0:scenecut=0:threads=1",
                "g": str(rate),
            }
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for picture in pictures:
                frame = av.VideoFrame.from_ndarray(cv2.imread(str(picture)), format="bgr24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    write_with(path, into)


def write_with(path: Path, writer: Callable[[Path], None]) -> None:
    """Let a writer fill a file that is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        writer(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def description(recording: Recording) -> dict[str, object]:
    """drive.yaml."""
    lens, drive = lens_for(WIDTH), scene_of(recording.name)
    cx, cy = lens.centre_px
    focal = round(lens.focal_px, 3)
    cameras = [
        {
            "camera_id": camera_id,
            "video": f"{camera_id}.mp4",
            "timestamps": f"{camera_id}.timestamps.csv",
            "width": WIDTH,
            "height": HEIGHT,
            "fps_hz": recording.fps_hz,
            "intrinsics": {"fx_px": focal, "fy_px": focal, "cx_px": cx, "cy_px": cy},
            "mount": asdict(mount),
        }
        for camera_id, mount in MOUNTS.items()
    ]
    whole: dict[str, object] = {
        "format": FORMAT,
        "name": f"sample {recording.name}",
        "licence": LICENCE,
        "seed": recording.seed,
    }
    whole |= {"classes": list(CLASSES), "cameras": cameras}
    if recording.labelled:
        whole["labels"] = "labels.jsonl"
    return whole | {"conditions": [asdict(spell) for spell in drive.spells]}


def record(recording: Recording, args: argparse.Namespace) -> None:
    """Render, encode and describe one recording."""
    folder, jobs = args.out / recording.name, []
    folder.mkdir(parents=True, exist_ok=True)
    for camera_id in MOUNTS:
        work = args.work / recording.name / camera_id
        work.mkdir(parents=True, exist_ok=True)
        instants = captured_ns(recording, camera_id)
        jobs += [(recording, camera_id, i, int(ns), work) for i, ns in enumerate(instants)]
        rows = "".join(f"{i},{ns}\n" for i, ns in enumerate(instants))
        write_whole(folder / f"{camera_id}.timestamps.csv", f"frame_id,captured_ns\n{rows}".encode())
    pictures = list(rendered(jobs, processes=args.processes))
    videos = []
    for start, camera_id in zip(range(0, len(jobs), recording.frames), MOUNTS, strict=True):
        videos.append((folder / f"{camera_id}.mp4", pictures[start : start + recording.frames], recording))
    with multiprocessing.get_context("spawn").Pool(min(args.processes, len(videos))) as pool:
        pool.map(encode, videos)
    if recording.labelled:
        lines = [picture.with_suffix(".json").read_text() for picture in pictures]
        write_whole(folder / "labels.jsonl", ("\n".join(lines) + "\n").encode())
    write_whole(folder / "drive.yaml", yaml.safe_dump(description(recording), sort_keys=False).encode())


def rendered(jobs: list[tuple[Recording, str, int, int, Path]], *, processes: int) -> Iterator[Path]:
    """Frames in order, rendered by many processes."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for done, path in enumerate(pool.imap(render_frame, jobs), 1):
            if done % 50 == 0:
                sys.stderr.write(f"{jobs[0][0].name}: {done}/{len(jobs)} frames\n")
            yield path


def main() -> None:
    """Make the recordings that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/samples"))
    parser.add_argument("--work", type=Path, default=Path("build/sample_drives"))
    parser.add_argument("--only", choices=[r.name for r in RECORDINGS])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    args = parser.parse_args()
    for recording in RECORDINGS:
        if args.only in (None, recording.name):
            record(recording, args)


if __name__ == "__main__":
    main()
