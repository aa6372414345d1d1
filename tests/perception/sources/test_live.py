"""Running cameras: a real RTSP server on loopback, real GStreamer elements, and devices that come and go."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources import csi
from perception.sources.cameras import is_live, named, open_cameras
from perception.sources.csi import Mode, argus
from perception.sources.live import LiveSource, SenderClock, Shot, now_ns
from perception.sources.rtsp import open_rtsp, without_password
from perception.sources.source import Clock
from perception.sources.table import open_frames, open_source
from perception.sources.v4l2 import open_v4l2

SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
HAS_SERVER = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def absent(what: str) -> None:
    """Skip with a reason, or fail where continuous integration has installed it."""
    if os.environ.get("TOLLGATE_CI") == "1":
        pytest.fail(f"{what}, but TOLLGATE_CI=1 says it must be")
    pytest.skip(what)


@pytest.fixture(scope="module")
def rtsp() -> None:
    """GStreamer's RTSP server, for the system's Python."""
    probe = (
        subprocess.run([SYSTEM_PYTHON, "-c", HAS_SERVER], capture_output=True) if Path(SYSTEM_PYTHON).exists() else None
    )
    if probe is None or probe.returncode:
        absent("gir1.2-gst-rtsp-server-1.0 and python3-gi are not installed")


@pytest.fixture(scope="module")
def gstreamer() -> None:
    if shutil.which("gst-launch-1.0") is None:
        absent("gstreamer1.0-tools is not installed")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(port: int, rate_hz: int = 20) -> Iterator[str]:
    server = subprocess.Popen([SYSTEM_PYTHON, str(SERVER), str(port), str(rate_hz)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "READY\n"
        yield f"rtsp://127.0.0.1:{port}/front"
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def shown(index: int) -> np.ndarray:
    return np.full((24, 32, 3), index % 250, np.uint8)


def ticking(count: int, *, period_s: float = 0.01) -> Generator[Shot]:
    """A device that gives `count` pictures and is gone then."""
    for index in range(count):
        time.sleep(period_s)
        yield Shot(shown(index), now_ns())
    raise SourceError("unplugged")


def test_an_rtsp_camera_shows_moving_pictures_in_order(rtsp):
    with serving(free_port()) as url:
        source = open_frames(Path(url))
        frames = list(islice(source.frames(), 12))
        source.close()
    (camera,) = source.cameras
    assert (camera.width_px, camera.height_px, camera.clock) == (320, 192, Clock.MONOTONIC)
    assert all(a.captured_ns < b.captured_ns and a.frame_id < b.frame_id for a, b in pairwise(frames))
    assert any(np.abs(a.pixels.astype(int) - b.pixels).max() > 100 for a, b in pairwise(frames))
    assert 0 < now_ns() - frames[-1].captured_ns < 5_000_000_000


def test_a_slow_reader_of_rtsp_gets_the_newest_picture_and_sees_what_it_missed(rtsp):
    with serving(free_port()) as url:
        source = open_cameras(Path(url))
        frames = source.frames()
        before = next(frames)
        time.sleep(2)
        woken_ns = now_ns()
        next(frames)
        newest = next(frames)
        source.close()
    assert newest.captured_ns > woken_ns - 1_000_000_000
    assert newest.frame_id - before.frame_id > 10


def test_an_rtsp_server_that_goes_and_comes_back_is_a_gap(rtsp):
    port = free_port()
    with serving(port) as url:
        source = open_cameras(Path(url))
        frames = source.frames()
        last = list(islice(frames, 10))[-1]
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(islice(frames, 20)), daemon=True)
    reader.start()
    time.sleep(1.5)
    with serving(port):
        reader.join(30)
        assert not reader.is_alive()
        source.close()
    assert source.gaps() == {"camera": 1}
    ids = [last.frame_id] + [frame.frame_id for frame in seen]
    stamps = [last.captured_ns] + [frame.captured_ns for frame in seen]
    assert all(a < b for a, b in pairwise(ids))
    assert all(a < b for a, b in pairwise(stamps))
    widest = max(range(len(seen)), key=lambda place: stamps[place + 1] - stamps[place])
    assert ids[widest + 1] - ids[widest] > 10


def test_an_rtsp_camera_that_is_not_there_is_refused_without_its_password():
    url = f"rtsp://admin:secret@127.0.0.1:{free_port()}/front"
    with pytest.raises(
        SourceError, match=r"rtsp://admin:…@127\.0\.0\.1:\d+/front: cannot be read \(connection refused"
    ) as told:
        open_cameras(Path(url))
    assert "secret" not in str(told.value)


def test_an_rtsp_path_that_is_not_there_is_refused(rtsp):
    with serving(free_port()) as url, pytest.raises(SourceError, match="cannot be read"):
        next(open_rtsp(url.replace("/front", "/rear")))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsp://host/stream", "rtsp://host/stream"),
        ("rtsp://me:word@host:8554/stream", "rtsp://me:…@host:8554/stream"),
        ("rtsps://me:word@host/stream?x=1", "rtsps://me:…@host/stream?x=1"),
    ],
)
def test_a_password_is_never_shown(url, expected):
    assert without_password(url) == expected
    assert named(Path(url)) == expected


def test_gstreamer_elements_are_a_camera(gstreamer):
    elements = "videotestsrc is-live=true pattern=red ! video/x-raw,framerate=30/1"
    source = open_cameras(Path(f"gstreamer:{elements}"))
    frames = list(islice(source.frames(), 5))
    source.close()
    assert frames[0].pixels.shape == (720, 1280, 3)
    assert frames[0].pixels[300, 300].tolist() == [0, 0, 255]
    assert all(a.frame_id < b.frame_id for a, b in pairwise(frames))


def test_a_width_that_gstreamer_pads_is_read_row_by_row(gstreamer):
    mode = Mode(width_px=322, height_px=100, rate_hz=30)
    source = LiveSource(
        {"cam": lambda: csi.open_gstreamer(("videotestsrc", "is-live=true", "pattern=blue"), mode, where="cam")}
    )
    frame = next(source.frames())
    source.close()
    assert frame.pixels.shape == (100, 322, 3)
    assert (frame.pixels == (255, 0, 0)).all()


def test_a_gstreamer_source_that_ends_is_opened_again(gstreamer):
    mode = Mode(width_px=64, height_px=32, rate_hz=30)
    elements = ("videotestsrc", "is-live=true", "num-buffers=6")
    source = LiveSource({"cam": lambda: csi.open_gstreamer(elements, mode, where="cam")})
    ids = [frame.frame_id for frame in islice(source.frames(), 12)]
    source.close()
    assert source.gaps()["cam"] >= 1
    assert all(a < b for a, b in pairwise(ids))


def test_a_camera_that_gstreamer_does_not_know_is_refused_in_its_words(gstreamer):
    with pytest.raises(SourceError, match=r"csi:0: gives no more pictures .*nvarguscamerasrc"):
        open_cameras(Path("csi:0"))


def test_the_pipeline_of_a_csi_sensor_is_nvidias():
    assert " ".join(argus(1, Mode(1920, 1080, 30))) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1 "
        "! nvvidconv ! video/x-raw,format=BGRx"
    )


def test_a_missing_v4l2_device_is_refused(tmp_path):
    with pytest.raises(SourceError, match="/dev/video97: does not exist, expected a camera"):
        open_cameras(Path("/dev/video97"))


def test_a_device_file_that_is_no_camera_is_refused():
    with pytest.raises(SourceError, match=r"/dev/null: cannot be read .*v4l2-ctl"):
        next(open_v4l2(Path("/dev/null"), options={"video_size": "640x480"}))


def test_a_device_that_disappears_and_returns_is_a_gap_with_the_frames_it_cost():
    source = LiveSource({"cam": lambda: ticking(8)})
    frames = list(islice(source.frames(), 20))
    gaps = source.gaps()["cam"]
    source.close()
    assert gaps >= 1
    jumps = [b.frame_id - a.frame_id for a, b in pairwise(frames)]
    assert max(jumps) > 5  # 0.2 s away at 100 Hz
    assert all(jump >= 1 for jump in jumps)
    assert all(a.captured_ns < b.captured_ns for a, b in pairwise(frames))


def test_pictures_that_a_device_lost_are_gaps_in_frame_id():
    def losing() -> Generator[Shot]:
        yield Shot(shown(0), now_ns())
        for index in range(1, 100):
            time.sleep(0.02)
            yield Shot(shown(index), now_ns(), lost=2)

    source = LiveSource({"cam": losing})
    ids = [frame.frame_id for frame in islice(source.frames(), 4)]
    source.close()
    assert all((b - a) % 3 == 0 for a, b in pairwise(ids))


def test_each_camera_can_be_read_by_itself_and_none_waits_for_another():
    source = LiveSource({"fast": lambda: ticking(1000), "slow": lambda: ticking(1000, period_s=0.05)})
    assert [camera.camera_id for camera in source.cameras] == ["fast", "slow"]
    fast = list(islice(source.camera_frames("fast"), 10))
    slow = list(islice(source.camera_frames("slow"), 3))
    source.close()
    assert {frame.camera_id for frame in fast} == {"fast"}
    assert {frame.camera_id for frame in slow} == {"slow"}
    assert list(source.camera_frames("fast")) == []


def test_closing_ends_a_reader_that_waits_and_leaves_no_thread():
    source = LiveSource({"cam": lambda: ticking(1)})
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(source.frames()))
    reader.start()
    source.close()
    source.close()
    reader.join(5)
    assert not reader.is_alive()
    assert [thread for thread in threading.enumerate() if thread.name == "camera cam"] == []


def test_a_camera_that_cannot_be_opened_at_the_beginning_is_an_error_and_stops_the_others():
    with pytest.raises(SourceError, match="unplugged"):
        LiveSource({"good": lambda: ticking(1000), "bad": lambda: ticking(0)})
    assert [thread for thread in threading.enumerate() if thread.name.startswith("camera ")] == []


def test_a_senders_clock_is_put_onto_ours_and_a_burst_is_dated_back():
    clock = SenderClock()
    assert clock.captured_ns(1_000, 501_000) == 501_000
    assert clock.captured_ns(2_000, 502_500) == 502_000  # 500 later than the first
    assert clock.captured_ns(3_000, 502_900) == 502_900  # sooner than any before: the first was late itself
    assert [clock.captured_ns(stamp, 509_000) for stamp in (4_000, 5_000, 6_000)] == [503_900, 504_900, 505_900]


def test_a_senders_clock_that_runs_slow_does_not_make_pictures_old():
    clock, second_ns = SenderClock(), 1_000_000_000
    lag_ns = 0
    for second in range(200):
        arrived_ns = round(second * second_ns * 1.001)
        lag_ns = arrived_ns - clock.captured_ns(second * second_ns, arrived_ns)
    assert 0 <= lag_ns <= 21_000_000  # 0.1 % of the 20 s that count


def test_a_cameras_file_names_several(tmp_path, gstreamer):
    path = tmp_path / "car.cameras.yaml"
    path.write_text(
        "format: tollgate-cameras/1\ncameras:\n"
        + "".join(
            f"- {{camera_id: {name}, address: 'gstreamer:videotestsrc is-live=true pattern={colour}', "
            "width: 64, height: 32, rate_hz: 30}\n"
            for name, colour in (("front", "red"), ("rear", "blue"))
        )
    )
    assert is_live(path)
    source = open_frames(path)
    colours = {frame.camera_id: frame.pixels[9, 9].tolist() for frame in islice(source.frames(), 8)}
    source.close()
    assert colours == {"front": [0, 0, 255], "rear": [255, 0, 0]}
    assert [camera.rate_hz for camera in source.cameras] == [30.0, 30.0]
    one = open_cameras(path, cameras=["rear"])
    one.close()
    assert [camera.camera_id for camera in one.cameras] == ["rear"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("format: tollgate-cameras/1\ncameras: []", "cameras"),
        ("format: tollgate-cameras/1\ncameras: [{camera_id: a, address: 'ftp:x'}]", "got 'ftp:x', expected a running"),
        ("format: tollgate-cameras/1\ncameras: [{camera_id: a, address: 'csi:x'}]", "expected the sensor's number"),
        ("format: tollgate-cameras/1\ncameras: [{camera_id: a, address: 'csi:0', width: 4}]", "both or neither"),
        (
            "format: tollgate-cameras/1\ncameras: [{camera_id: a, address: 'csi:0'}, {camera_id: a, address: 'csi:1'}]",
            "stands twice",
        ),
    ],
)
def test_a_cameras_file_that_is_wrong_is_refused(tmp_path, content, expected):
    path = tmp_path / "car.cameras.yaml"
    path.write_text(content)
    with pytest.raises(SourceError, match=expected):
        open_cameras(path)


def test_a_camera_is_no_recording():
    with pytest.raises(SourceError, match=r"rtsp://host/front: is a running camera, expected a recording"):
        open_source(Path("rtsp://host/front"))
