from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import yaml

RECORDINGS = ("drive", "calibration")
LIMIT_BYTES = 8 * 1024 * 1024


def description(samples: Path, recording: str) -> dict:
    return yaml.safe_load((samples / recording / "drive.yaml").read_text())


def instants_ns(samples: Path, recording: str, camera: dict) -> np.ndarray:
    with (samples / recording / camera["timestamps"]).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame_id"]) for row in rows] == list(range(len(rows)))
    return np.array([int(row["captured_ns"]) for row in rows])


def labels(samples: Path) -> list[dict]:
    return [json.loads(line) for line in (samples / "drive" / "labels.jsonl").read_text().splitlines()]


def test_everything_together_stays_small(samples: Path) -> None:
    kept = [p for p in samples.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in kept) <= LIMIT_BYTES


@pytest.mark.parametrize("recording", RECORDINGS)
def test_videos_have_as_many_frames_of_the_stated_size_as_timestamps(samples: Path, recording: str) -> None:
    for camera in description(samples, recording)["cameras"]:
        with av.open(str(samples / recording / camera["video"])) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (camera["width"], camera["height"])
            assert stream.codec_context.name == "h264"
            assert float(stream.average_rate) == camera["fps_hz"]
            presented = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        assert len(presented) == len(instants_ns(samples, recording, camera))
        assert len(set(np.diff(presented))) == 1


@pytest.mark.parametrize("recording", RECORDINGS)
def test_timestamps_rise_by_the_period_and_the_cameras_belong_together(samples: Path, recording: str) -> None:
    cameras = description(samples, recording)["cameras"]
    front, right = (instants_ns(samples, recording, camera) for camera in cameras)
    period_ns = 1e9 / cameras[0]["fps_hz"]
    for instants in (front, right):
        assert np.abs(np.diff(instants) - period_ns).max() < 250_000
    skew_ns = right - front
    assert skew_ns.min() > 1_000_000
    assert skew_ns.max() < 2_000_000


def test_conditions_cover_each_recording_without_gaps(samples: Path) -> None:
    for recording, duration_s in zip(RECORDINGS, (10.0, 20.0), strict=True):
        spells = description(samples, recording)["conditions"]
        assert spells[0]["from_s"] == 0.0
        assert spells[-1]["to_s"] == duration_s
        assert all(a["to_s"] == b["from_s"] for a, b in pairwise(spells))
        assert {s["light"] for s in spells} == {"day", "dusk"}
        assert {s["weather"] for s in spells} == {"clear", "rain"}


def test_only_the_sample_drive_has_labels(samples: Path) -> None:
    assert description(samples, "drive")["labels"] == "labels.jsonl"
    assert "labels" not in description(samples, "calibration")
    assert description(samples, "drive")["seed"] != description(samples, "calibration")["seed"]


def test_there_is_one_line_of_labels_a_frame_with_its_timestamp(samples: Path) -> None:
    expected = {}
    for camera in description(samples, "drive")["cameras"]:
        for index, instant in enumerate(instants_ns(samples, "drive", camera)):
            expected[camera["camera_id"], index] = int(instant)
    lines = labels(samples)
    assert {(line["camera_id"], line["frame_id"]): line["captured_ns"] for line in lines} == expected
    assert len(lines) == len(expected)


def test_labels_lie_in_the_picture_and_follow_the_written_rules(samples: Path) -> None:
    classes = set(description(samples, "drive")["classes"])
    met = set()
    for line in labels(samples):
        tracks = [one["track_id"] for one in line["objects"]]
        assert len(set(tracks)) == len(tracks)
        for one in line["objects"]:
            x1, y1, x2, y2 = one["box"]
            assert 0 <= x1 < x2 <= 1280
            assert 0 <= y1 < y2 <= 720
            assert y2 - y1 >= 7.9
            assert one["distance_m"] > 0
            assert 0 <= one["truncation"] <= 1
            assert 0 <= one["occlusion"] <= 0.98
            met.add(one["class"])
    assert met == classes


def test_a_track_keeps_its_class(samples: Path) -> None:
    kinds: dict[int, set[str]] = {}
    for line in labels(samples):
        for one in line["objects"]:
            kinds.setdefault(one["track_id"], set()).add(one["class"])
    assert all(len(kind) == 1 for kind in kinds.values())
