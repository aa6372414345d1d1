from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.errors import OutputError
from perception.pipeline import FrameResult
from perception.sinks.drawing import draw
from perception.sinks.overlay import OverlayVideos
from perception.sources.video import VideoSource
from tests.disk import room_for
from tests.perception.sinks.outcomes import CLASSES, HEADER, outcome, skipped


def noisy(frame_id: int) -> FrameResult:
    """A frame that does not compress."""
    published = outcome(frame_id)
    pixels = np.random.default_rng(frame_id).integers(0, 255, (180, 320, 3), np.uint8)
    object.__setattr__(published.frame, "pixels", pixels)
    return published


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_each_camera_gets_a_video_of_its_frames_at_their_times(tmp_path):
    sink = OverlayVideos(tmp_path / "out", HEADER)
    for frame_id in range(12):
        sink.write(outcome(frame_id))
        if frame_id % 2:
            sink.write(outcome(frame_id, camera_id="rear"))
    sink.close()
    assert files_in(tmp_path) == ["front.mp4", "rear.mp4"]
    front = list(VideoSource(tmp_path / "out" / "front.mp4").frames())
    rear = list(VideoSource(tmp_path / "out" / "rear.mp4").frames())
    assert [frame.captured_ns for frame in front] == [40_000_000 * index for index in range(12)]
    assert [frame.captured_ns for frame in rear] == [80_000_000 * index for index in range(6)]


def test_the_video_shows_what_was_drawn_in_the_same_colours(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    for frame_id in range(3):
        sink.write(outcome(frame_id, size_px=(640, 360)))
    sink.close()
    shown = next(iter(VideoSource(tmp_path / "front.mp4").frames())).pixels
    drawn = draw(outcome(0, size_px=(640, 360)), CLASSES)
    assert shown.shape == drawn.shape
    assert np.abs(shown.astype(int) - drawn).mean() < 4
    assert np.abs(shown[200:300, 400:600].mean(axis=(0, 1)) - drawn[200:300, 400:600].mean(axis=(0, 1))).max() < 4


def test_a_skipped_frame_has_its_place_in_the_video(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    for published in (outcome(0), skipped(1), outcome(2)):
        sink.write(published)
    sink.close()
    brightness = [frame.pixels[40:].mean() for frame in VideoSource(tmp_path / "front.mp4").frames()]
    assert brightness[1] < 0.7 * brightness[0]
    assert len(brightness) == 3


def test_the_index_stands_in_front_so_that_a_browser_can_start_at_once(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    sink.write(outcome())
    sink.close()
    content = (tmp_path / "front.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


@pytest.mark.parametrize("size_px", [(321, 181), (1242, 375), (64, 48)])
def test_pictures_of_odd_size_are_shown_whole(tmp_path, size_px):
    sink = OverlayVideos(tmp_path, HEADER)
    sink.write(outcome(size_px=size_px))
    sink.close()
    shown = next(VideoSource(tmp_path / "front.mp4").frames()).pixels
    drawn = draw(outcome(size_px=size_px), CLASSES)
    assert shown.shape[0] - drawn.shape[0] in (0, 1)
    assert shown.shape[1] - drawn.shape[1] in (0, 1)


def test_pictures_of_another_size_are_fitted_into_the_first(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    for frame_id, size_px in enumerate([(320, 180), (640, 360), (100, 300)]):
        sink.write(outcome(frame_id, size_px=size_px))
    sink.close()
    assert len({frame.pixels.shape for frame in VideoSource(tmp_path / "front.mp4").frames()}) == 1


def test_nothing_is_visible_before_the_end(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    for frame_id in range(5):
        sink.write(outcome(frame_id))
    assert not (tmp_path / "front.mp4").exists()
    sink.close()
    sink.close()
    sink.abort()
    assert files_in(tmp_path) == ["front.mp4"]


def test_an_aborted_run_leaves_nothing_and_an_earlier_video_untouched(tmp_path):
    (tmp_path / "front.mp4").write_bytes(b"earlier")
    sink = OverlayVideos(tmp_path, HEADER)
    for frame_id in range(5):
        sink.write(outcome(frame_id))
        sink.write(outcome(frame_id, camera_id="rear"))
    sink.abort()
    sink.abort()
    sink.close()
    assert files_in(tmp_path) == ["front.mp4"]
    assert (tmp_path / "front.mp4").read_bytes() == b"earlier"


def test_an_aborted_run_takes_its_empty_folders_away(tmp_path):
    sink = OverlayVideos(tmp_path / "new" / "out", HEADER)
    for frame_id in range(3):
        sink.write(outcome(frame_id))
        sink.write(outcome(frame_id, camera_id="rear"))
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_frames_writes_nothing(tmp_path):
    OverlayVideos(tmp_path / "out", HEADER).close()
    assert files_in(tmp_path) == []


def test_a_full_disk_is_reported_with_the_path_and_leaves_nothing(tmp_path):
    sink = OverlayVideos(tmp_path, HEADER)
    full = r"front\.mp4: cannot be written \(File too large\); free space"
    with room_for(20_000), pytest.raises(OutputError, match=full):
        for frame_id in range(60):
            sink.write(noisy(frame_id))
    sink.abort()
    assert files_in(tmp_path) == []


def test_a_file_where_the_folder_should_be_is_refused_and_untouched(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="out: is a file, expected a folder"):
        OverlayVideos(tmp_path / "out", HEADER)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_camera_name_cannot_lead_out_of_the_folder(tmp_path):
    sink = OverlayVideos(tmp_path / "out", HEADER)
    sink.write(outcome(camera_id="../rear left"))
    sink.close()
    assert files_in(tmp_path) == [".._rear_left.mp4"]
    assert (tmp_path / "out" / ".._rear_left.mp4").is_file()
