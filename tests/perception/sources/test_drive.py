from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perception.errors import SourceError
from perception.sources.drive import Drive, DriveSource
from tests.perception.builders import drive_of_cameras
from tests.perception.sources.recordings import index_of, write_drive, write_video

FRONT = [1_000_000_000 + 40_000_000 * index for index in range(20)]
REAR = [stamp + 3_000_001 for stamp in FRONT]


def change(folder, **fields):
    """Change fields of drive.yaml."""
    path = folder / "drive.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | fields))


def change_camera(folder, **fields):
    """Change fields of its first camera."""
    cameras = yaml.safe_load((folder / "drive.yaml").read_text())["cameras"]
    change(folder, cameras=[cameras[0] | fields, *cameras[1:]])


def test_two_cameras_come_in_capture_order_with_the_times_of_the_tables(tmp_path):
    source = DriveSource(write_drive(tmp_path, {"front": FRONT, "rear": REAR}))
    frames = list(source.frames())
    assert [frame.camera_id for frame in frames] == ["front", "rear"] * 20
    assert [frame.captured_ns for frame in frames] == sorted(FRONT + REAR)
    assert [index_of(frame.pixels) for frame in frames[::2]] == list(range(20))


def test_cameras_are_described_as_drive_yaml_says(tmp_path):
    source = DriveSource(write_drive(tmp_path, {"front": FRONT, "rear": REAR}))
    assert [(camera.camera_id, camera.rate_hz, camera.frame_count) for camera in source.cameras] == [
        ("front", 25.0, 20),
        ("rear", 25.0, 20),
    ]
    assert source.drive.name == "test drive"


def test_a_picture_lost_at_recording_is_a_gap_in_the_ids(tmp_path):
    write_drive(tmp_path, {"front": FRONT[:3]})
    (tmp_path / "front.timestamps.csv").write_text("frame_id,captured_ns\n0,10\n1,20\n5,60\n")
    frames = list(DriveSource(tmp_path).frames())
    assert [(frame.frame_id, frame.captured_ns, frame.name) for frame in frames][2] == (5, 60, "000005")


def test_the_file_itself_may_be_named(tmp_path):
    assert len(list(DriveSource(write_drive(tmp_path, {"front": FRONT}) / "drive.yaml").frames())) == 20


def test_a_choice_of_cameras_opens_no_other(tmp_path):
    write_drive(tmp_path, {"front": FRONT, "rear": REAR})
    (tmp_path / "rear.mp4").unlink()
    assert {frame.camera_id for frame in DriveSource(tmp_path, cameras=["front"]).frames()} == {"front"}
    with pytest.raises(SourceError, match=r"rear\.mp4: cannot be read"):
        DriveSource(tmp_path)


def test_labels_and_conditions_are_carried(tmp_path):
    extra = {"labels": "labels.jsonl", "classes": ["car"], "conditions": [{"light": "dusk", "start_s": 3.0}], "seed": 4}
    drive = Drive.load(write_drive(tmp_path, {"front": FRONT}, **extra))
    assert (drive.labels, drive.classes, drive.conditions) == (
        "labels.jsonl",
        ("car",),
        ({"light": "dusk", "start_s": 3.0},),
    )


@pytest.mark.parametrize(("rows", "lines"), [(19, 19), (21, 21), (0, 0)])
def test_a_table_of_another_length_than_the_video_is_refused(tmp_path, rows, lines):
    write_drive(tmp_path, {"front": FRONT})
    table = "".join(f"{index},{index}\n" for index in range(rows))
    (tmp_path / "front.timestamps.csv").write_text(f"frame_id,captured_ns\n{table}")
    with pytest.raises(SourceError, match=rf"front\.mp4: got 20 pictures, its timestamps have {lines} lines"):
        DriveSource(tmp_path)


@pytest.mark.parametrize(("rows", "given_out"), [(19, 19), (21, 20)])
def test_a_table_of_another_length_is_noticed_at_the_end_where_the_video_does_not_count(tmp_path, rows, given_out):
    write_drive(tmp_path, {"front": FRONT})
    write_video(tmp_path / "front.mkv", 20)
    change_camera(tmp_path, video="front.mkv")
    table = "".join(f"{index},{index}\n" for index in range(rows))
    (tmp_path / "front.timestamps.csv").write_text(f"frame_id,captured_ns\n{table}")
    taken = []
    frames = DriveSource(tmp_path).frames()
    with pytest.raises(SourceError, match=f"its timestamps have {rows} lines"):
        while True:
            taken.append(next(frames))
    assert len(taken) == given_out


@pytest.mark.parametrize("line", ["1", "1,2,3", "one,20", "1,2.5", ""])
def test_a_line_of_the_table_that_is_not_two_numbers_is_refused_with_its_number(tmp_path, line):
    write_drive(tmp_path, {"front": FRONT[:3]})
    (tmp_path / "front.timestamps.csv").write_text(f"frame_id,captured_ns\n0,10\n{line}\n2,30\n")
    with pytest.raises(SourceError, match=r"front\.timestamps\.csv:3: got "):
        DriveSource(tmp_path)


@pytest.mark.parametrize("content", ["", "time,frame\n0,1\n", "0,10\n1,20\n2,30\n"])
def test_a_table_without_its_header_is_refused(tmp_path, content):
    write_drive(tmp_path, {"front": FRONT[:3]})
    (tmp_path / "front.timestamps.csv").write_text(content)
    with pytest.raises(SourceError, match=r"front\.timestamps\.csv: .*expected .*frame_id,captured_ns"):
        DriveSource(tmp_path)


def test_time_that_goes_backwards_ends_the_recording_and_names_the_frame(tmp_path):
    stamps = [*FRONT[:5], FRONT[3], *FRONT[6:]]
    frames = DriveSource(write_drive(tmp_path, {"front": stamps})).frames()
    taken = []
    with pytest.raises(
        SourceError, match=r"camera front, frame 5 \(000005\): captured at 1120000000 ns, expected later"
    ):
        while True:
            taken.append(next(frames))
    assert len(taken) == 5


def test_pictures_of_another_size_than_stated_are_refused(tmp_path):
    write_drive(tmp_path, {"front": FRONT})
    change_camera(tmp_path, width=1280)
    with pytest.raises(SourceError, match=r"front\.mp4: got pictures of 160x96, drive\.yaml says 1280x96 \(px\)"):
        DriveSource(tmp_path)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"format": "tollgate-drive/9"}, "format: got 'tollgate-drive/9', expected 'tollgate-drive/1'"),
        ({"cameras": []}, r"cameras: got .*at least 1 item"),
        ({"colour": "red"}, "colour: is no field here"),
    ],
)
def test_fields_that_are_wrong_or_unknown_are_named(tmp_path, fields, complaint):
    write_drive(tmp_path, {"front": FRONT[:3]})
    change(tmp_path, **fields)
    with pytest.raises(SourceError, match=rf"drive\.yaml: {complaint}"):
        DriveSource(tmp_path)


@pytest.mark.parametrize("video", ["../front.mp4", "/tmp/front.mp4", "sub/front.mp4"])
def test_a_file_outside_the_folder_is_refused(tmp_path, video):
    write_drive(tmp_path, {"front": FRONT[:3]})
    change_camera(tmp_path, video=video)
    with pytest.raises(SourceError, match=r"is no plain file name beside drive.yaml"):
        DriveSource(tmp_path)


def test_the_same_camera_twice_is_refused(tmp_path):
    write_drive(tmp_path, {"front": FRONT[:3], "rear": REAR[:3]})
    change_camera(tmp_path, camera_id="rear")
    with pytest.raises(SourceError, match="the same camera_id stands twice"):
        DriveSource(tmp_path)


@pytest.mark.parametrize("content", ["{", "- a\n- list\n", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    (tmp_path / "drive.yaml").write_text(content)
    with pytest.raises(SourceError, match=r"drive\.yaml: (line \d+, column \d+: |got )"):
        DriveSource(tmp_path)


def decoding_threads() -> int:
    """Threads of this process that FFmpeg named after its decoder."""
    return sum(path.read_text().startswith("av:h264") for path in Path("/proc/self/task").glob("*/comm"))


@pytest.mark.parametrize(("cameras", "threads"), [(1, 12), (4, 3), (13, 1)])
def test_cameras_that_are_read_at_once_share_the_cores(tmp_path, monkeypatch, cameras, threads):
    monkeypatch.setattr("perception.sources.video.os.sched_getaffinity", lambda _: range(13))
    source = DriveSource(drive_of_cameras(tmp_path / "drive", cameras))
    before = decoding_threads()
    frames = source.camera_frames("camera_0")
    next(frames)
    seen = decoding_threads() - before
    frames.close()
    assert seen == (threads if threads > 1 else 0)
