"""Training frames: streets of other seeds, rendered by many processes into one file a street."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from roadsim.actors import CLASSES
from roadsim.camera import Mount
from roadsim.ground import paint_ground
from roadsim.render import Seen, expose
from roadsim.scenes import MOUNTS, TRAINING_SEEDS, lens_for, random_air, random_scene
from roadsim.street import lay_out

FRAME_WIDTH, FRAME_HEIGHT = 640, 360
FRAMES_A_STREET = 24
OBJECTS = 64
MIN_HEIGHT_PX = 4.0
HIDDEN = 0.75


def street_file(folder: Path, seed: int) -> Path:
    """Where a street's frames are kept."""
    return folder / f"street_{seed}.npz"


def render_streets(folder: Path, seeds: list[int], *, processes: int) -> Iterator[Path]:
    """Render what is missing; yields each street's file as it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        yield from pool.imap_unordered(_render_street, [(folder, seed) for seed in seeds])


def _render_street(job: tuple[Path, int]) -> Path:
    folder, seed = job
    path = street_file(folder, seed)
    if path.exists():
        return path
    cv2.setNumThreads(1)
    street = lay_out(seed)
    ground = paint_ground(street)
    rng = np.random.default_rng([seed, 31])
    lens = lens_for(FRAME_WIDTH)
    images = np.zeros((FRAMES_A_STREET, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    boxes = np.full((FRAMES_A_STREET, OBJECTS, 6), -1.0, np.float32)
    for index in range(FRAMES_A_STREET):
        number = seed * FRAMES_A_STREET + index
        scene = random_scene(street, ground, number)
        air, _, _ = random_air(number)
        mount = _shaken(rng, list(MOUNTS.values())[int(rng.random() < 0.45)])
        glances = 3 if rng.random() < 0.25 else 1
        images[index], seen = expose(scene, lens, mount, t_s=0.0, air=air, glances=glances, frame=index)
        rows = training_rows(seen)
        boxes[index, : len(rows)] = rows
    partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
    np.savez(partial, images=images, boxes=boxes)
    partial.replace(path)
    return path


def _shaken(rng: np.random.Generator, mount: Mount) -> Mount:
    """A mount near the drive's, so that one camera's pose is not learnt by heart."""
    side = rng.choice([-1, 1]) if mount.yaw_deg else 1
    return replace(
        mount,
        z_m=mount.z_m + float(rng.uniform(-0.25, 0.35)),
        yaw_deg=side * mount.yaw_deg + float(rng.normal(0, 4)),
        pitch_deg=mount.pitch_deg + float(rng.normal(0, 1.2)),
    )


def training_rows(seen: list[Seen]) -> np.ndarray:
    """Up to OBJECTS rows of class, x1, y1, x2, y2, ignored (1 where nobody can be asked to see it)."""
    rows = []
    for one in seen:
        tall = one.box[3] - one.box[1]
        if one.occlusion > 0.97 or tall < 2.5:
            continue
        ignored = one.occlusion > HIDDEN or tall < MIN_HEIGHT_PX
        rows.append((CLASSES.index(one.kind), *one.box, float(ignored)))
    rows.sort(key=lambda r: (r[5], -(r[4] - r[2])))
    return np.array(rows[:OBJECTS], np.float32).reshape(-1, 6)


def training_seeds(first: int, frames: int) -> list[int]:
    """Seeds of as many streets as the frames need, from the range kept for training."""
    count = -(-frames // FRAMES_A_STREET)
    seeds = list(TRAINING_SEEDS[first : first + count])
    if len(seeds) < count:
        raise ValueError(
            f"--frames {frames}: {count} streets wanted from {first}, the range holds {len(TRAINING_SEEDS)}"
        )
    return seeds


def load(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """All frames of some streets: (N, 360, 640, 3) uint8 BGR and (N, OBJECTS, 6) float32."""
    images = np.zeros((len(paths) * FRAMES_A_STREET, FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    boxes = np.zeros((len(paths) * FRAMES_A_STREET, OBJECTS, 6), np.float32)
    for index, path in enumerate(paths):
        with np.load(path) as street:
            span = slice(index * FRAMES_A_STREET, (index + 1) * FRAMES_A_STREET)
            images[span], boxes[span] = street["images"], street["boxes"]
    return images, boxes


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
