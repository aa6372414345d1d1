from __future__ import annotations

import resource
import struct
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.video import VideoSource
from tests.perception.sources.recordings import (
    H264,
    HEIGHT_PX,
    HEVC,
    MJPEG,
    MPEG4,
    WIDTH_PX,
    Coding,
    index_of,
    overwrite,
    packet_span,
    picture,
    write_video,
)

NO_REORDERING = Coding(options=(("bf", "0"),))
INDEX_IN_FRONT = Coding(container_options=(("movflags", "+faststart"),))


def collect(path: Path) -> tuple[list[Frame], str]:
    """The frames that come, and the sentence that ends them; "" where the recording ends by itself."""
    frames: list[Frame] = []
    try:
        for frame in VideoSource(path).frames():
            frames.append(frame)
    except SourceError as error:
        return frames, str(error)
    return frames, ""


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("a.mp4", H264),
        ("a.mkv", H264),
        ("a.ts", H264),
        ("a.avi", H264),
        ("a.mp4", HEVC),
        ("a.avi", MJPEG),
        ("a.mov", MJPEG),
        ("a.mp4", MPEG4),
        ("a.avi", MPEG4),
    ],
)
def test_every_picture_comes_once_in_order_at_its_time(tmp_path, name, coding):
    frames, end = collect(write_video(tmp_path / name, 30, coding=coding))
    assert end == ""
    assert [index_of(frame.pixels) for frame in frames] == list(range(30))
    assert [frame.frame_id for frame in frames] == list(range(30))
    assert {b.captured_ns - a.captured_ns for a, b in pairwise(frames)} == {40_000_000}


def test_pixels_are_the_picture_that_was_encoded_as_bgr(tmp_path):
    finest = Coding(options=(("crf", "4"),))
    frame = next(VideoSource(write_video(tmp_path / "a.mp4", 3, coding=finest)).frames())
    assert frame.pixels.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert frame.pixels.dtype == np.uint8
    assert np.abs(frame.pixels.astype(int) - picture(0)).mean() < 4


@pytest.mark.parametrize(("matrix", "coefficients"), [(1, (0.2126, 0.0722)), (6, (0.299, 0.114)), (2, (0.299, 0.114))])
def test_colours_follow_the_matrix_that_the_file_names(tmp_path, matrix, coefficients):
    red, green, blue = 200, 60, 30
    kr, kb = coefficients
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = (
        16 + 219 * luma / 255,
        128 + 112 * (blue - luma) / (1 - kb) / 255,
        128 + 112 * (red - luma) / (1 - kr) / 255,
    )
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.codec_context.colorspace = "yuv420p", matrix
        frame = av.VideoFrame(64, 64, "yuv420p")
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(bytes([round(value)]) * plane.buffer_size)
        frame.colorspace = matrix
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    pixels = next(VideoSource(tmp_path / "a.mp4").frames()).pixels
    assert np.abs(pixels[32, 32].astype(int) - (blue, green, red)).max() <= 3


def test_an_uneven_frame_rate_stays_uneven(tmp_path):
    times_ms = [0, 33, 67, 100, 180, 181, 250, 400, 401, 500]
    frames, _ = collect(write_video(tmp_path / "a.mp4", 10, times_ms=times_ms))
    assert [frame.captured_ns for frame in frames] == [1_000_000 * time for time in times_ms]


def test_times_of_a_tick_that_is_no_whole_nanosecond_are_rounded_and_do_not_drift(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for index in range(31):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="bgr24")))
        container.mux(stream.encode(None))
    frames, _ = collect(tmp_path / "a.mp4")
    assert (frames[1].captured_ns, frames[30].captured_ns) == (33_333_333, 1_000_000_000)


def test_the_camera_is_described_before_anything_is_read(tmp_path):
    source = VideoSource(write_video(tmp_path / "front.mp4", 12))
    (camera,) = source.cameras
    assert (camera.camera_id, camera.width_px, camera.height_px) == ("front", WIDTH_PX, HEIGHT_PX)
    assert (camera.rate_hz, camera.frame_count) == (25.0, 12)


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)],
    ids=["90 clockwise", "180", "90 counterclockwise"],
)
def test_a_rotation_noted_in_the_file_is_applied(tmp_path, matrix, turns):
    path = write_video(tmp_path / "a.mp4", 2)
    upright = next(VideoSource(path).frames()).pixels
    note_rotation(path, matrix)
    source = VideoSource(path)
    rotated = next(source.frames()).pixels
    assert np.array_equal(rotated, np.rot90(upright, turns))
    assert (source.cameras[0].height_px, source.cameras[0].width_px) == rotated.shape[:2]


def note_rotation(path: Path, matrix: tuple[float, ...]) -> None:
    """Write the upper left of a display matrix into an MP4."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    header = path.read_bytes().index(b"tkhd")
    overwrite(path, header + 44, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def turned_by(degrees: float) -> tuple[float, ...]:
    """The display matrix of a counter-clockwise turn."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (cosine, -sine, sine, cosine)


@pytest.mark.parametrize("degrees", [45, 7, 88, 272, 182])
def test_a_rotation_that_is_no_quarter_turn_is_refused_with_the_remedy(tmp_path, degrees):
    path = write_video(tmp_path / "a.mp4", 2)
    note_rotation(path, turned_by(degrees))
    with pytest.raises(SourceError) as caught:
        VideoSource(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: notes a rotation of ")
    assert "expected 0, 90, 180 or 270; turn the pictures themselves with: ffmpeg -i FILE NEW.mp4" in message


@pytest.mark.parametrize(("degrees", "turns"), [(89.4, 1), (90.4, 1), (180.3, 2), (359.6, 0), (269.5, 3)])
def test_a_rotation_a_hair_off_a_quarter_turn_is_that_quarter_turn(tmp_path, degrees, turns):
    path = write_video(tmp_path / "a.mp4", 2)
    upright = next(VideoSource(path).frames()).pixels
    note_rotation(path, turned_by(degrees))
    assert np.array_equal(next(VideoSource(path).frames()).pixels, np.rot90(upright, turns))


def test_a_title_in_another_encoding_bars_nothing(tmp_path):
    path = write_video(tmp_path / "clip.mkv", 3)
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"\xe9\xff\xfef"))
    frames, error = collect(path)
    assert ([index_of(frame.pixels) for frame in frames], error) == ([0, 1, 2], "")


@pytest.mark.parametrize("coding", [H264, MJPEG], ids=lambda coding: str(coding.codec))
@pytest.mark.parametrize("count", [1, 2])
def test_a_matroska_file_of_one_or_two_frames_is_whole(tmp_path, coding, count):
    frames, end = collect(write_video(tmp_path / "a.mkv", count, coding=coding))
    assert (len(frames), end) == (count, "")


def test_a_matroska_file_cut_behind_its_first_frame_is_truncated(tmp_path):
    path = write_video(tmp_path / "a.mkv", 40, coding=MJPEG)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: packets[0].pos + packets[0].size + 16])
    frames, end = collect(path)
    assert len(frames) == 1
    assert "ends after 0.000 of 1.600 s; the file is truncated" in end


def test_a_stream_cut_out_of_a_broadcast_starts_at_its_first_key_picture(tmp_path):
    whole = write_video(tmp_path / "a.ts", 40).read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[len(whole) // 188 // 3 * 188 :])
    frames, end = collect(tmp_path / "cut.ts")
    assert end == ""
    assert [index_of(frame.pixels) for frame in frames] == list(range(24, 40))


@pytest.mark.parametrize("place", [0.2, 0.35, 0.5, 0.7])
def test_pictures_that_lean_on_what_was_cut_away_are_left_out(tmp_path, place):
    open_groups = Coding(options=(("x264-params", "keyint=10:min-keyint=10:open-gop=1:bframes=3:scenecut=0"),))
    whole = write_video(tmp_path / "a.ts", 40, coding=open_groups).read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[int(place * len(whole)) // 188 * 188 :])
    frames, end = collect(tmp_path / "cut.ts")
    shown = [index_of(frame.pixels) for frame in frames]
    assert end == ""
    assert shown[0] in (10, 20, 30)
    assert shown == list(range(shown[0], 40))


@pytest.mark.parametrize("coding", [H264, NO_REORDERING, HEVC, MPEG4, MJPEG], ids=lambda coding: str(coding.codec))
@pytest.mark.parametrize("damaged", [0, 7, 20, 39])
def test_a_damaged_packet_ends_the_recording_before_any_invented_picture(tmp_path, coding, damaged):
    path = write_video(tmp_path / "a.mov", 40, coding=coding)
    whole = [frame.pixels for frame in VideoSource(path).frames()]
    start, size = packet_span(path, damaged)
    overwrite(path, start, np.random.default_rng(1).bytes(size))
    frames, end = collect(path)
    count = len(frames)
    assert end.startswith(f"{path}: cannot be decoded from frame {count} ({count * 0.04:.3f} s) on (")
    assert end.endswith("the file is damaged: copy it again, or cut it there")
    assert damaged - 5 <= count <= damaged
    assert all(np.array_equal(frame.pixels, good) for frame, good in zip(frames, whole, strict=False))


def test_frames_before_the_damage_come_all_where_pictures_are_not_reordered(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40, coding=NO_REORDERING)
    start, size = packet_span(path, 20)
    overwrite(path, start, bytes(size))
    frames, end = collect(path)
    assert [index_of(frame.pixels) for frame in frames] == list(range(20))
    assert "frame 20 (0.800 s)" in end


@pytest.mark.parametrize("place", [0.3, 0.5, 0.7, 0.9])
def test_a_lost_transport_packet_is_noticed(tmp_path, place):
    path = write_video(tmp_path / "a.ts", 40)
    whole = path.read_bytes()
    of_video = [start for start in range(0, len(whole), 188) if whole[start + 1] & 31 == 1 and whole[start + 2] == 0]
    lost = of_video[int(place * len(of_video))]
    path.write_bytes(whole[:lost] + whole[lost + 188 :])
    frames, end = collect(path)
    assert len(frames) < 40
    assert "cannot be decoded from frame" in end


@pytest.mark.parametrize(
    ("name", "coding"),
    [("a.mp4", INDEX_IN_FRONT), ("a.mkv", H264), ("a.avi", H264), ("a.avi", MJPEG), ("a.avi", MPEG4)],
)
@pytest.mark.parametrize("kept", [0.5, 0.8])
def test_a_truncated_file_ends_with_an_error_and_not_as_a_shorter_recording(tmp_path, name, coding, kept):
    path = write_video(tmp_path / name, 40, coding=coding)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    frames, end = collect(path)
    assert len(frames) < 40
    assert "truncated" in end or "damaged" in end
    assert str(path) in end


def test_a_truncated_file_without_its_index_cannot_be_opened(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match=r"no video that can be read .* truncated or of another kind"):
        VideoSource(path)


@pytest.mark.parametrize("content", [b"not a video at all\n" * 200, bytes(5000)])
def test_a_file_that_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.mp4: is no video that can be read"):
        VideoSource(tmp_path / "a.mp4")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.mp4").touch()
    with pytest.raises(SourceError, match=r"a\.mp4: is empty \(0 bytes\)"):
        VideoSource(tmp_path / "a.mp4")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        VideoSource(tmp_path / "a.mp4")


def test_a_file_with_sound_only_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match=r"holds no video \(streams: audio\)"):
        VideoSource(tmp_path / "a.mp4")


def test_a_bare_stream_without_timestamps_is_refused_with_the_remedy(tmp_path):
    write_video(tmp_path / "a.h264", 10)
    with pytest.raises(SourceError, match=r"frame 0 has no timestamp.*ffmpeg -framerate HZ"):
        VideoSource(tmp_path / "a.h264")


def test_a_name_that_looks_like_a_protocol_is_a_file(tmp_path):
    frames, end = collect(write_video(tmp_path / "concat:a.mp4", 3))
    assert (len(frames), end) == (3, "")


@pytest.mark.shared
def test_recordings_of_real_cameras_are_read_to_their_last_frame(shared_data):
    for name, count in (("udacity_solidWhiteRight", 221), ("udacity_vehicle_test_video", 38)):
        frames, end = collect(shared_data / "clips" / f"{name}.mp4")
        assert (len(frames), end) == (count, "")
        assert {b.captured_ns - a.captured_ns for a, b in pairwise(frames)} == {40_000_000}


def test_frames_that_are_let_go_give_their_memory_to_later_ones(tmp_path):
    addresses = [frame.pixels.ctypes.data for frame in VideoSource(write_video(tmp_path / "a.mp4", 60)).frames()]
    assert len(addresses) == 60
    assert len(set(addresses)) <= 4


def test_frames_that_are_held_keep_their_pixels(tmp_path):
    path = write_video(tmp_path / "a.mp4", 40)
    copies = [frame.pixels.copy() for frame in VideoSource(path).frames()]
    held = list(VideoSource(path).frames())
    assert len({frame.pixels.ctypes.data for frame in held}) == 40
    assert all(np.array_equal(frame.pixels, copy) for frame, copy in zip(held, copies, strict=True))


def test_pixels_cannot_be_written_to(tmp_path):
    frame = next(VideoSource(write_video(tmp_path / "a.mp4", 2)).frames())
    with pytest.raises(ValueError, match="read-only"):
        frame.pixels[0, 0] = 0


@pytest.mark.parametrize("size_px", [(64, 48), (50, 34), (46, 38)], ids=str)
@pytest.mark.parametrize("colour_range", [1, 2], ids=["limited", "full"])
@pytest.mark.parametrize(("codec", "layout"), [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("mjpeg", "yuvj422p")])
def test_pixels_are_those_of_the_plain_scaler(tmp_path, codec, layout, colour_range, size_px):
    path = tmp_path / "a.mkv"
    random = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        (stream.width, stream.height), stream.pix_fmt = size_px, layout
        stream.codec_context.color_range = colour_range if codec != "mjpeg" else 2
        for _ in range(3):
            noise = random.integers(0, 256, (size_px[1], size_px[0], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        expected = [picture.to_ndarray(format="bgr24") for picture in container.decode(video=0)]
    frames, end = collect(path)
    assert (len(frames), end) == (3, "")
    assert all(np.array_equal(frame.pixels, plain) for frame, plain in zip(frames, expected, strict=True))


PQ = (("x265-params", "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"),)


@pytest.mark.parametrize(
    "coding",
    [
        Coding(options=(("x264-params", "tff=1"),)),
        Coding(options=(("x264-params", "transfer=log100:fullrange=on"),)),
        Coding(options=(("x264-params", "chromaloc=2:colormatrix=bt709"),)),
        Coding("libx265", "yuv420p10le", options=PQ),
        Coding("ffv1", "yuv420p10le", options=(("chroma_sample_location", "3"),)),
        Coding("ffv1", "yuv411p", options=(("chroma_sample_location", "1"),)),
        Coding("ffv1", "gray"),
        Coding("libx264rgb", "bgr24"),
    ],
    ids=["interlaced", "log", "chroma location", "HDR", "10 bits", "4:1:1", "grey", "RGB"],
)
def test_pixels_of_rare_kinds_are_those_of_the_plain_scaler(tmp_path, coding):
    path = write_video(tmp_path / "a.mkv", 3, coding=coding)
    assert_plain_pixels(path)


@pytest.mark.parametrize("location", ["0", "1", "3"])
@pytest.mark.parametrize("size_px", [(65, 48), (64, 47), (65, 47)], ids=str)
def test_pixels_of_odd_sizes_are_those_of_the_plain_scaler(tmp_path, size_px, location):
    random = np.random.default_rng(1)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"chroma_sample_location": location})
        (stream.width, stream.height), stream.pix_fmt = size_px, "yuv420p"
        for _ in range(3):
            noise = random.integers(0, 256, (size_px[1], size_px[0], 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="bgr24")))
        container.mux(stream.encode(None))
    assert_plain_pixels(tmp_path / "a.mkv")


def assert_plain_pixels(path: Path) -> None:
    """What is read is what the scaler makes of each picture by itself."""
    try:
        with av.open(str(path)) as container:
            expected = [picture.to_ndarray(format="bgr24", threads=1) for picture in container.decode(video=0)]
    except OSError as error:
        pytest.skip(f"the plain scaler of PyAV {av.__version__} does not know it: {error}")
    frames, end = collect(path)
    assert (len(frames), end) == (len(expected), "")
    assert all(np.array_equal(frame.pixels, plain) for frame, plain in zip(frames, expected, strict=True))


def test_colours_that_no_scaler_knows_are_refused_with_the_remedy(tmp_path):
    coding = Coding(options=(("x264-params", "colormatrix=YCgCo"),))
    with pytest.raises(SourceError, match=r"colours \(yuv420p, matrix 8\) cannot be converted to BGR .*ffmpeg -i FILE"):
        VideoSource(write_video(tmp_path / "a.mp4", 2, coding=coding))


def test_a_hundred_frames_do_not_fault_their_memory_in_again(tmp_path):
    random = np.random.default_rng(1)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuvj420p"
        flat = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), random.integers(0, 256), np.uint8), format="bgr24")
        for _ in range(130):
            container.mux(stream.encode(flat))
        container.mux(stream.encode(None))
    frames, addresses = VideoSource(tmp_path / "a.avi").frames(), set()
    for _ in range(20):
        page_count = next(frames).pixels.nbytes // resource.getpagesize()
    before, taken = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
    for frame in frames:
        addresses.add(frame.pixels.ctypes.data)
        size = frame.pixels.nbytes
        del frame
        taken += [np.empty(size, np.uint8), np.empty(size + 4096, np.uint8)]  # whatever malloc got back is gone
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert len(addresses) <= 4
    assert faults / 110 < page_count / 4
