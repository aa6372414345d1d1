"""TensorRT's way for frames, on a GPU of host memory: what is copied, captured, waited for, decoded and given back."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import onnx
import pytest

from perception.agreement import agreed_on
from perception.deadline.slots import SeenSlots, Slots
from perception.engines.cuda_selection import ROOM
from perception.engines.onnxrt import OnnxRuntimeEngine
from perception.errors import EngineError, SpecError
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.sources.table import open_source
from tests.perception.builders import MODELS
from tests.perception.engines import gpu_stand_in

SPEC = ModelSpec.load(MODELS / "sample_detector.yaml")
CONTENT = (MODELS / "sample_detector.onnx").read_bytes()
THRESHOLD = SPEC.decoding.score_threshold


@pytest.fixture
def gpu():
    with gpu_stand_in.installed() as gpu:
        yield gpu


@pytest.fixture
def engine(gpu):
    from perception.engines.tensorrt import TensorRtEngine

    engine = TensorRtEngine(CONTENT)
    yield engine
    engine.close()
    assert gpu.left_over == 0


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    source = open_source(MODELS.parent / "drive" / "front.mp4")
    found = [frame for _, frame in zip(range(6), source.frames(), strict=False)]
    source.close()
    return found


def on_the_cpu(spec: ModelSpec = SPEC, content: bytes = CONTENT, **options) -> Pipeline:
    return Pipeline(spec, OnnxRuntimeEngine(content, threads=1), deadline_ns=1 << 40, **options)


def test_a_pipeline_sends_frames_the_engines_own_way_and_says_so(gpu, engine, frames):
    pipeline, reference = Pipeline(SPEC, engine, deadline_ns=1 << 40), on_the_cpu()
    told = [agreed_on(reference.step(f).result, pipeline.step(f).result, score=THRESHOLD) for f in frames]
    assert sum(each.told for each in told) > 50
    assert sum(each.apart for each in told) == 0
    assert "frames are prepared on the GPU" in pipeline.way
    assert pipeline.way.endswith("decoded to detections; one CUDA graph a frame")
    assert reference.way == "frames are prepared and decoded on the CPU"


def test_a_frame_is_one_launch(gpu, engine, frames):
    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40)
    pipeline.step(frames[0])
    before = gpu.launches
    pipeline.step(frames[1])
    assert gpu.launches == before + 1


@pytest.mark.parametrize(("wait", "cores", "sleeps"), [
    ("spin", 1, False), ("blocking", 8, True), ("auto", 8, False), ("auto", 1, True),
])  # fmt: skip
def test_a_call_waits_as_it_was_told(gpu, frames, monkeypatch, wait, cores, sleeps):
    from perception.engines.table import open_engine

    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    engine = open_engine("tensorrt", CONTENT, threads=1, wait=wait)
    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40)
    pipeline.step(frames[0])
    before = gpu.slept
    assert len(pipeline.step(frames[0]).result) > 5
    assert (gpu.slept > before) is sleeps
    engine.close()


def test_where_captures_are_refused_frames_are_enqueued_piece_by_piece_and_it_is_said(gpu, engine, frames):
    gpu.refuses_captures = True
    pipeline, before = Pipeline(SPEC, engine, deadline_ns=1 << 40), gpu.launches
    assert len(pipeline.step(frames[0]).result) > 5
    assert "capture was refused (900)" in pipeline.way
    assert gpu.launches == before


def test_on_a_gpu_that_shares_the_hosts_memory_no_frame_is_copied(gpu, engine, frames):
    engine.device.integrated = True
    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40)
    before = gpu.copies_to_gpu_bytes
    assert len(pipeline.step(frames[0]).result) > 5
    assert "on the GPU (mapped)" in pipeline.way
    assert gpu.copies_to_gpu_bytes == before


def test_where_kernels_do_not_compile_frames_are_prepared_on_the_cpu_and_it_is_said(gpu, engine, frames, monkeypatch):
    import pycuda.compiler

    def refuse(source, arch, no_extern_c):
        raise OSError("no nvcc")

    monkeypatch.setattr(pycuda.compiler, "compile", refuse)
    pipeline, reference = Pipeline(SPEC, engine, deadline_ns=1 << 40), on_the_cpu()
    for frame in frames[:2]:
        np.testing.assert_array_equal(pipeline.step(frame).result.scores, reference.step(frame).result.scores)
    assert pipeline.way.startswith(
        "frames are prepared and decoded on the CPU: CUDA kernel: does not compile (no nvcc)"
    )


def test_a_decoder_without_a_kernel_reads_the_outputs_on_the_cpu(gpu, frames):
    """The same network, its rows transposed as another decoder wants them."""
    from perception.engines.tensorrt import TensorRtEngine

    model = onnx.load_from_string(CONTENT)
    (output,) = model.graph.output
    rows, fields = (side.dim_value for side in output.type.tensor_type.shape.dim[1:])
    keep = onnx.numpy_helper.from_array(np.array([0, 1, 2, 3, *range(5, fields)]), "keep")
    model.graph.initializer.append(keep)
    model.graph.node.append(onnx.helper.make_node("Gather", [output.name, "keep"], ["without_objectness"], axis=2))
    del model.graph.output[:]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("without_objectness", onnx.TensorProto.FLOAT, [1, rows, fields - 1])
    )
    decoding = SPEC.decoding.model_copy(
        update={"decoder": "yolov8", "tensors": {"output": "without_objectness"}, "strides_px": (), "options": {}}
    )
    spec = SPEC.model_copy(update={"decoding": decoding})
    content = model.SerializeToString()
    engine = TensorRtEngine(content)
    pipeline, reference = Pipeline(spec, engine, deadline_ns=1 << 40), on_the_cpu(spec, content)
    got, expected = pipeline.step(frames[0]).result, reference.step(frames[0]).result
    assert len(got) > 5
    assert abs(len(got) - len(expected)) <= 1
    assert "their outputs decoded on the CPU; one CUDA graph a frame" in pipeline.way
    engine.close()


def test_a_second_input_is_fed_the_networks_size_once(gpu, frames):
    from perception.engines.tensorrt import TensorRtEngine

    model = onnx.load_from_string(CONTENT)
    model.graph.input.append(onnx.helper.make_tensor_value_info("size", onnx.TensorProto.INT64, [1, 2]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["size"], ["told"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("told", onnx.TensorProto.INT64, [1, 2]))
    spec = ModelSpec.model_validate({**SPEC.model_dump(), "size_input": {"tensor": "size"}})
    engine = TensorRtEngine(model.SerializeToString())
    from perception.engines.cuda_frame import FrameLayout
    from perception.engines.tensorrt_frames import FramePath

    path = FramePath(engine, spec, FrameLayout(64, 48), buffers=1)
    assert path.infer(path.lend())["told"].tolist() == [[512, 288]]
    assert len(Pipeline(spec, engine, deadline_ns=1 << 40).step(frames[0]).result) > 5
    engine.close()


def test_more_candidates_than_usually_come_back_are_fetched(gpu, engine, frames):
    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40, score_threshold=0.0)
    reference = on_the_cpu(score_threshold=0.0)
    got, expected = pipeline.step(frames[0]).result, reference.step(frames[0]).result
    assert len(got) == len(expected) == SPEC.decoding.max_detections > ROOM
    np.testing.assert_allclose(got.scores, expected.scores, atol=0.02)


def test_frames_of_many_sizes_have_a_path_each_and_the_oldest_makes_room(gpu, engine, monkeypatch):
    from perception.engines import tensorrt_way

    monkeypatch.setattr(tensorrt_way, "MOST_SIZES", 2)
    pipeline, chance = Pipeline(SPEC, engine, deadline_ns=1 << 40), np.random.default_rng(0)

    def lent_after(width: int) -> list[bool]:
        pixels = chance.integers(0, 256, (40, width, 3), np.uint8)
        pipeline.step(Frame(pixels, "front", 0, 0, "0"))
        return [pipeline.lend((40, each, 3)) is not None for each in (64, 65, 66)]

    assert lent_after(64) == [True, False, False]
    assert lent_after(65) == [True, True, False]
    gc.collect()
    before = len(gpu.memory)
    assert lent_after(66) == [False, True, True]
    assert lent_after(64) == [True, False, True]
    gc.collect()
    assert abs(len(gpu.memory) - before) <= 2  # a frame's copy, where that measured faster


def test_numbers_that_are_none_are_refused(gpu, frames):
    from perception.engines.tensorrt import TensorRtEngine

    model = onnx.load_from_string(CONTENT)
    name = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["before" if each == name else each for each in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.nan), "nan"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["before", "nan"], [name]))
    engine = TensorRtEngine(model.SerializeToString())
    with pytest.raises(EngineError, match="values are NaN or infinite; no result is given for this frame"):
        Pipeline(SPEC, engine, deadline_ns=1 << 40).step(frames[0])
    engine.close()


def test_a_lent_buffer_is_not_copied_and_comes_back_when_nobody_holds_any_of_it(gpu, engine, frames):
    from perception.engines.tensorrt_way import BUFFERS

    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40)
    shape = frames[0].pixels.shape
    assert pipeline.lend(shape) is None  # a path is opened by the thread that runs it
    expected = pipeline.step(frames[0]).result
    lent = [pipeline.lend(shape) for _ in range(BUFFERS - 1)]
    assert pipeline.lend(shape) is None
    for pixels in lent:
        np.copyto(pixels, frames[0].pixels)
    pipeline.step(frames[1])  # in the buffer that is kept for frames that lie elsewhere
    for pixels in lent:
        got = pipeline.step(replace(frames[0], pixels=pixels)).result
        np.testing.assert_array_equal(got.boxes_px, expected.boxes_px)
    corner = lent[0][:2, :2]
    addresses = {each.ctypes.data for each in lent[1:]}
    lent.clear()
    del pixels
    gc.collect()
    again = [pipeline.lend(shape) for _ in addresses]
    assert {each.ctypes.data for each in again} == addresses
    assert pipeline.lend(shape) is None  # `corner` still holds one
    np.testing.assert_array_equal(corner, frames[0].pixels[:2, :2])


@pytest.fixture
def slots(frames):
    memory = Slots(3, frames[0].pixels.nbytes)
    seen = SeenSlots(memory.file, memory.slot_bytes)
    yield memory, seen
    memory.close()


@pytest.mark.parametrize("integrated", [True, False])
def test_a_frame_in_adopted_memory_is_taken_from_where_it_lies(gpu, engine, frames, slots, integrated):
    memory, seen = slots
    engine.device.integrated = integrated
    pipelines = [Pipeline(SPEC, engine, deadline_ns=1 << 40) for _ in range(2)]
    for pipeline in pipelines:
        pipeline.adopt(seen.memory)  # which both share
    expected = [pipelines[0].step(frame).result for frame in frames[:3]]
    numbers = [memory.put(frame.pixels) for frame in frames[:3]]
    for pipeline in pipelines:
        pipeline.step(frames[4])  # opens a path
        (path,) = pipeline._way._paths.values()
        path._own[...] = 0
        for number, frame, each in zip(numbers, frames, expected, strict=False):
            got = pipeline.step(replace(frame, pixels=seen.pixels(number, *frame.pixels.shape[:2]))).result
            np.testing.assert_array_equal(got.boxes_px, each.boxes_px)
        assert not path._own.any()  # nothing went through the buffer of frames that lie elsewhere
    engine.close()
    assert seen.memory.ctypes.data not in gpu.pinned


def test_where_memory_cannot_be_adopted_frames_are_copied_and_it_is_said(gpu, engine, frames, slots):
    memory, seen = slots
    gpu.refuses_to_lock = True
    pipeline, number = Pipeline(SPEC, engine, deadline_ns=1 << 40), memory.put(frames[0].pixels)
    pipeline.adopt(seen.memory)
    expected = pipeline.step(frames[0]).result
    got = pipeline.step(replace(frames[0], pixels=seen.pixels(number, *frames[0].pixels.shape[:2]))).result
    np.testing.assert_array_equal(got.boxes_px, expected.boxes_px)
    assert pipeline.way.endswith("each is copied from shared memory first: locking shared memory: 801")


def test_frames_that_outlive_their_engine_keep_the_context(gpu, frames):
    from perception.engines import cuda_device
    from perception.engines.tensorrt import TensorRtEngine

    engine = TensorRtEngine(CONTENT)
    pipeline = Pipeline(SPEC, engine, deadline_ns=1 << 40)
    pipeline.step(frames[0])
    held = pipeline.lend(frames[0].pixels.shape)
    engine.close()
    assert held is not None
    assert cuda_device._shared is not None
    assert not gpu.memory


@pytest.mark.parametrize("memory", ["copied", "mapped"])
def test_cameras_taken_together_say_what_each_says_alone(gpu, engine, frames, memory):
    from perception.engines.cuda_frame import FrameLayout
    from perception.engines.tensorrt_cameras import ForkedCameras
    from perception.engines.tensorrt_frames import FramePath

    layout = FrameLayout(frames[0].width_px, frames[0].height_px)
    paths = [FramePath(engine, SPEC, layout, buffers=1, memory=memory, score_threshold=THRESHOLD) for _ in range(3)]
    buffers = [path.lend() for path in paths]
    together = ForkedCameras(paths, buffers, engine)
    assert together.why_no_graph == ""
    for pixels, frame in zip(buffers, frames[3:], strict=True):
        np.copyto(pixels, frame.pixels)
    before = gpu.launches
    got = together.detect()
    assert gpu.launches == before + 1
    for path, pixels, found in zip(paths, buffers, got, strict=True):
        np.testing.assert_array_equal(found.boxes_px, path.detect(pixels).boxes_px)
    assert len({len(found.scores) for found in got}) > 1 or not np.array_equal(got[0].boxes_px, got[1].boxes_px)


@pytest.mark.parametrize("memory", ["copied", "mapped"])
def test_cameras_in_a_batch_say_what_each_says_alone(gpu, engine, frames, memory):
    from perception.engines.cuda_frame import FrameLayout
    from perception.engines.tensorrt import TensorRtEngine
    from perception.engines.tensorrt_cameras import BatchedCameras
    from perception.engines.tensorrt_frames import FramePath
    from scripts.tensorrt_bench.batch import batched

    layout = FrameLayout(frames[0].width_px, frames[0].height_px)
    path = FramePath(engine, SPEC, layout, buffers=1, memory=memory, score_threshold=THRESHOLD)
    (alone,) = [path.lend()]
    batch = TensorRtEngine(batched(CONTENT, 3))
    together = BatchedCameras(batch, SPEC, [layout] * 3, memory=memory, score_threshold=THRESHOLD)
    assert together.why_no_graph == ""
    for pixels, frame in zip(together.frames, frames[3:], strict=True):
        np.copyto(pixels, frame.pixels)
    before = gpu.launches
    got = together.detect()
    assert gpu.launches == before + 1
    for frame, found in zip(frames[3:], got, strict=True):
        np.copyto(alone, frame.pixels)
        np.testing.assert_allclose(found.boxes_px, path.detect(alone).boxes_px, atol=0.01)
    with pytest.raises(SpecError, match=r"is \[3, 3, 288, 512\], expected \[2, 3, 288, 512\] for 2 cameras"):
        BatchedCameras(batch, SPEC, [layout] * 2, memory=memory, score_threshold=THRESHOLD)
    batch.close()
