"""Small networks of shapes that this project was not made with, as other people's exporters write them.

Every function returns a sketch whose layers have weights of a trained network's size, so that 8 bits can serve them;
`ARCHITECTURES` says how each is saved and which of its layers have to stay float.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper

from tests.compile.graphs import Sketch, query_logits, rt_detr, yolox

DYNAMIC = "its weights are no constant"
ENDS = "last before a network output"


@dataclass(frozen=True)
class Architecture:
    """How a sketch is saved, fed, and what is expected of it.

    Attributes:
        make: the sketch.
        saved: how the file is written: opset and IR version.
        fed: inputs that are no picture, with what they are always fed.
        unfit: layer that stays float on every engine → why.
        unfit_on: engine kind → layer that stays float there → why.
        ends: layers that only TensorRT keeps float, being the last before an output.
        kinds: engine kinds that can quantize any of it.
        sqnr_db: least ratio of signal to noise of every float output, in every recipe.
        agreement: least share of equal values in integer outputs.
    """

    make: Callable[[], Sketch]
    saved: Mapping[str, int] = field(default_factory=lambda: {"opset": 17})
    fed: Mapping[str, np.ndarray] = field(default_factory=dict)
    unfit: Mapping[str, str] = field(default_factory=dict)
    unfit_on: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ends: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("onnxrt", "tensorrt")
    sqnr_db: float = 22.0
    agreement: float = 0.9

    def expected_unfit(self, kind: str) -> dict[str, str]:
        """Layer → why it stays float on an engine kind."""
        ends = dict.fromkeys(self.ends, ENDS) if kind == "tensorrt" else {}
        return {**self.unfit, **self.unfit_on.get(kind, {}), **ends}


class Net(Sketch):
    """A sketch with weights drawn as an initialisation draws them: outputs about as large as inputs."""

    def drawn(self, *shape, gain=1.0):
        fan_in = int(np.prod(shape[1:])) or 1
        return (self._random.standard_normal(shape) * gain / np.sqrt(fan_in)).astype(np.float32)

    def bias(self, count):
        return self.weight((0.1 * self._random.standard_normal(count)).astype(np.float32))

    def convolved(self, tensor, channels_in, channels_out, side=3, *, name, bias=True, group=1, **attributes):
        weight = self.weight(self.drawn(channels_out, channels_in // group, *[side] * 2))
        read = [tensor, weight] + [self.bias(channels_out)] * bias
        attributes.setdefault("pads", [side // 2] * 4)
        return self.node("Conv", *read, name=name, group=group, **attributes)

    def image(self, tensor, name="out"):
        self.output(tensor, name, [None] * 4)
        return self


def stem(net: Net, tensor="images", channels=8) -> str:
    return net.node("Relu", net.convolved(tensor, 3, channels, name="stem"), name="stem_relu")


def picture(size=32, **more) -> Net:
    return Net(images=[1, 3, size, size], **more)


# Exporters' habits


def everyday() -> Sketch:
    """What every exporter writes: normalised convolutions, a skip, a pooling, a head."""
    net = picture()
    tensor = stem(net)
    normed = net.convolved(tensor, 8, 8, name="mid", bias=False)
    normed = net.node("BatchNormalization", normed, *(net.weight(np.abs(net.drawn(8)) + 0.5) for _ in range(4)))
    tensor = net.node("Relu", net.node("Add", normed, tensor))
    tensor = net.node("MaxPool", net.node("Identity", tensor), kernel_shape=[2, 2], strides=[2, 2])
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def old_operators() -> Sketch:
    """Opset 9: attributes where inputs stand today, Upsample, Softmax over all that follows, training's leftovers."""
    net = picture()
    tensor = net.node("Clip", stem(net), min=0.0, max=6.0)
    tensor = net.node("Pad", tensor, pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.0)
    tensor = net.convolved(tensor, 8, 8, name="mid", pads=[0, 0, 0, 0])
    tensor = net.node("Slice", tensor, axes=[2, 3], starts=[0, 0], ends=[16, 16])
    tensor = net.node("Upsample", tensor, net.weight(np.float32([1, 1, 2, 2])), mode="nearest")
    halves = net.node("Split", tensor, outputs=2, axis=1, split=[4, 4])
    tensor = net.node("Concat", *halves, axis=1)
    tensor = net.node("Dropout", tensor, ratio=0.5)
    pooled = net.node("ReduceMean", net.convolved(tensor, 8, 6, name="head"), axes=[2, 3], keepdims=1)
    flat = net.node("Squeeze", pooled, axes=[2, 3])
    scores = net.node("Softmax", flat, axis=1)
    best, index = net.node("TopK", net.node("Unsqueeze", scores, axes=[0]), outputs=2, axis=2, k=3)
    net.output(best, "best", [1, 1, 3])
    net.output(index, "index", [1, 1, 3], TensorProto.INT64)
    net.output(net.node("ReduceSum", tensor, axes=[1], keepdims=1), "sum", [None] * 4)
    return net


def resized() -> Sketch:
    """Opset 10: Resize with scales alone, whose rules changed at 11."""
    net = picture()
    tensor = net.node("Resize", stem(net), net.weight(np.float32([1, 1, 2, 2])), mode="nearest")
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def softmax_of_four_dimensions() -> Sketch:
    """Before opset 13 Softmax flattens from its axis on: a version bump alone would change what it computes."""
    net = picture()
    return net.image(net.node("Softmax", net.convolved(stem(net), 8, 4, name="head"), axis=1))


def exported_by_tensorflow() -> Sketch:
    """NHWC with a transposition before and after each convolution, weights in HWIO, biases added by themselves."""
    net = Net(images=[1, 32, 32, 3])
    tensor = "images"
    for number, (read, made) in enumerate(((3, 8), (8, 8), (8, 4))):
        name = f"conv{number}"
        weight = net.node("Transpose", net.weight(net.drawn(made, read, 3, 3).transpose(2, 3, 1, 0)), perm=[3, 2, 0, 1])
        turned = net.node("Transpose", tensor, perm=[0, 3, 1, 2])
        tensor = net.node("Conv", turned, weight, name=name, auto_pad="SAME_UPPER")
        tensor = net.node("Transpose", tensor, perm=[0, 2, 3, 1])
        tensor = net.node("Add", tensor, net.bias(made))
        tensor = net.node("Relu", tensor) if number < 2 else tensor
    return net.image(tensor)


def rectified_late() -> Sketch:
    """The Relu behind a transposition, as TensorFlow's exporters put it, and behind a pooling."""
    net = Net(images=[1, 32, 32, 3])
    tensor = net.convolved(net.node("Transpose", "images", perm=[0, 3, 1, 2]), 3, 8, name="first")
    tensor = net.node("Relu", net.node("Transpose", tensor, perm=[0, 2, 3, 1]))
    tensor = net.convolved(net.node("Transpose", tensor, perm=[0, 3, 1, 2]), 8, 8, name="second")
    tensor = net.node("Relu", net.node("MaxPool", tensor, kernel_shape=[2, 2], strides=[2, 2]))
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def constants_in_nodes() -> Sketch:
    """Weights as Constant nodes, bias too."""
    net = picture()

    def constant(values):
        return net.node("Constant", value=helper.make_tensor("c", TensorProto.FLOAT, values.shape, values.ravel()))

    first, second = constant(net.drawn(8, 3, 3, 3)), constant(net.drawn(4, 8, 1, 1))
    tensor = net.node("Conv", "images", first, constant(np.full(8, 0.1, np.float32)), name="first", pads=[1] * 4)
    return net.image(net.node("Conv", net.node("Relu", tensor), second, name="second"))


def normalised_apart(*, before: bool) -> Sketch:
    """BatchNormalization that cannot be fused: in front of its convolution, or behind a sum."""
    net = picture()

    def norm(tensor):
        numbers = (net.weight(np.abs(net.drawn(8)) + 0.5) for _ in range(4))
        return net.node("BatchNormalization", tensor, *numbers)

    tensor = stem(net)
    if before:
        tensor = net.convolved(net.node("Relu", norm(tensor)), 8, 8, name="mid")
    else:
        tensor = net.node("Relu", norm(net.node("Add", net.convolved(tensor, 8, 8, name="mid"), tensor)))
    return net.image(net.convolved(tensor, 8, 4, name="head"))


# Kinds of layers


def shared_weights() -> Sketch:
    """One head over two levels: two convolutions with the same weights, over inputs of other ranges."""
    net = picture()
    near = stem(net)
    far = net.node("Mul", net.node("MaxPool", near, kernel_shape=[2, 2], strides=[2, 2]), net.weight(np.float32(5)))
    weight, bias = net.weight(net.drawn(4, 8, 3, 3)), net.bias(4)
    for name, tensor in (("near", near), ("far", far)):
        net.image(net.node("Conv", tensor, weight, bias, name=f"head_{name}", pads=[1] * 4), name)
    return net


def weights_read_by_others() -> Sketch:
    """A weight that something else reads too has to stay in the graph as it is."""
    net = picture()
    weight = net.weight(net.drawn(8, 3, 3, 3))
    tensor = net.node("Conv", "images", weight, name="first", pads=[1] * 4)
    net.output(net.node("ReduceMean", weight, axes=[1, 2, 3], keepdims=0), "means", [8])
    return net.image(net.convolved(net.node("Relu", tensor), 8, 4, name="second"))


def without_bias() -> Sketch:
    net = picture()
    tensor = net.node("Relu", net.convolved("images", 3, 8, name="first", bias=False))
    return net.image(net.convolved(tensor, 8, 4, name="second", bias=False))


def dynamic_weights() -> Sketch:
    """A convolution whose kernel the network computes from the picture, between two ordinary ones."""
    net = picture()
    tensor = stem(net)
    pooled = net.node("GlobalAveragePool", tensor)
    kernel = net.reshape(net.convolved(pooled, 8, 64, 1, name="maker", pads=[0] * 4), 8, 8, 1, 1)
    tensor = net.node("Conv", tensor, kernel, name="dynamic")
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def transposed(*, group=1, bias=True) -> Sketch:
    net = picture()
    weight = net.weight(net.drawn(8, 8 // group, 2, 2, gain=2.0))
    read = [stem(net), weight] + [net.bias(8)] * bias
    tensor = net.node("ConvTranspose", *read, name="up", strides=[2, 2], group=group)
    return net.image(net.convolved(net.node("Relu", tensor), 8, 4, name="head"))


def transposed_and_normalised() -> Sketch:
    """ConvTranspose of two groups with its BatchNormalization behind it."""
    net = picture()
    tensor = net.node("ConvTranspose", stem(net), net.weight(net.drawn(8, 3, 2, 2)), name="up", strides=[2, 2], group=2)
    numbers = (net.weight(np.abs(net.drawn(6)) + 0.5) for _ in range(4))
    tensor = net.node("Relu", net.node("BatchNormalization", tensor, *numbers))
    return net.image(net.convolved(tensor, 6, 4, name="head"))


def grouped() -> Sketch:
    net = picture()
    tensor = net.node("Relu", net.convolved(stem(net), 8, 16, name="grouped", group=4))
    tensor = net.node("Relu", net.convolved(tensor, 16, 16, name="depthwise", group=16))
    tensor = net.node("Relu", net.convolved(tensor, 16, 32, name="multiplied", group=16))
    return net.image(net.convolved(tensor, 32, 4, 1, name="head"))


def one_dimensional() -> Sketch:
    """Conv over rows, as lane heads have it."""
    net = picture()
    rows = net.reshape(stem(net), 1, 8, 1024)
    weight = net.weight(net.drawn(6, 8, 5))
    tensor = net.node("Relu", net.node("Conv", rows, weight, net.bias(6), name="rows", pads=[2, 2], strides=[4]))
    net.output(net.node("Conv", tensor, net.weight(net.drawn(4, 6, 1)), name="head"), "out", [None] * 3)
    return net


def three_dimensional() -> Sketch:
    """Conv over a stack, as stereo networks have it."""
    net = picture()
    stack = net.reshape(stem(net), 1, 2, 4, 32, 32)
    tensor = net.node("Conv", stack, net.weight(net.drawn(4, 2, 3, 3, 3)), net.bias(4), name="stack", pads=[1] * 6)
    tensor = net.reshape(net.node("Relu", tensor), 1, 16, 32, 32)
    return net.image(net.convolved(tensor, 16, 4, name="head"))


def fully_connected() -> Sketch:
    """Gemm in every way it can be written, and a MatMul with its Add."""
    net = picture(8)
    flat = net.reshape(stem(net), 1, 512)
    tensor = net.node("Relu", net.node("Gemm", flat, net.weight(net.drawn(32, 512)), net.bias(32), transB=1, name="ab"))
    tensor = net.node("Gemm", tensor, net.weight(net.drawn(16, 32).T.copy()), net.bias(16), name="plain")
    scaled = net.weight(net.drawn(16, 16).T.copy())
    tensor = net.node("Gemm", tensor, scaled, net.bias(16), name="scaled", alpha=0.5, beta=2.0)
    row = net.weight(net.drawn(1, 16))
    tensor = net.node("Gemm", tensor, net.weight(net.drawn(16, 16).T.copy()), row, name="row_bias")
    scalar = net.weight(np.float32(0.3))
    tensor = net.node("Gemm", tensor, net.weight(net.drawn(16, 16).T.copy()), scalar, name="scalar_bias")
    tensor = net.node("Relu", net.node("Gemm", tensor, net.weight(net.drawn(16, 16).T.copy()), name="no_bias"))
    column = net.node("Transpose", tensor, perm=[1, 0])
    tensor = net.node("Gemm", column, net.weight(net.drawn(8, 16).T.copy()), net.bias(8), name="turned", transA=1)
    tensor = net.node(
        "Add", net.node("MatMul", tensor, net.weight(net.drawn(4, 8).T.copy()), name="matmul"), net.bias(4)
    )
    net.output(tensor, "out", [1, 4])
    return net


def odd_products() -> Sketch:
    """MatMul with constants where none is expected: on the left, of one dimension, of three."""
    net = picture(8)
    tokens = net.reshape(stem(net), 1, 8, 64)
    tensor = net.node("MatMul", net.weight(net.drawn(1, 8, 8)), tokens, name="left")
    tensor = net.node("MatMul", tensor, net.weight(net.drawn(1, 64, 16)), name="three")
    tensor = net.node("MatMul", tensor, net.weight(net.drawn(12, 16).T.copy()), name="plain")
    vector = net.node("MatMul", tensor, net.weight(net.drawn(12, gain=0.3)), name="vector")
    net.output(vector, "out", [1, 8])
    return net


def windows() -> Sketch:
    """Every way to pad, step and spread a kernel."""
    net = picture()
    tensor = stem(net)
    for name, attributes in (
        ("uneven", {"pads": [0, 1, 2, 3]}),
        ("same_lower", {"auto_pad": "SAME_LOWER", "pads": None}),
        ("spread", {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
        ("stepped", {"strides": [3, 1], "auto_pad": "VALID", "pads": None}),
    ):
        given = {key: value for key, value in attributes.items() if value is not None}
        weight = net.weight(net.drawn(8, 8, 3, 3))
        tensor = net.node("Relu", net.node("Conv", tensor, weight, net.bias(8), name=name, **given))
    return net.image(net.convolved(tensor, 8, 4, name="head"))


# Whole designs


def attention() -> Sketch:
    """A transformer layer: products of two activations beside those with weights, LayerNormalization, GELU."""
    net = picture()
    patches = net.convolved("images", 3, 16, 8, name="patches", strides=[8, 8], pads=[0] * 4)
    tokens = net.node("Transpose", net.reshape(patches, 1, 16, 16), perm=[0, 2, 1])
    tokens = net.node("Add", tokens, net.weight(net.drawn(1, 16, 16)))
    read = net.node("LayerNormalization", tokens, net.weight(np.ones(16, np.float32)), net.bias(16), axis=-1)
    query, key, value = (
        net.node("Add", net.node("MatMul", read, net.weight(net.drawn(16, 16).T.copy()), name=name), net.bias(16))
        for name in ("query", "key", "value")
    )
    turned = net.node("Transpose", key, perm=[0, 2, 1])
    scores = net.node("Mul", net.node("MatMul", query, turned, name="scores"), net.weight(np.float32(0.25)))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), value, name="mixed")
    tokens = net.node("Add", tokens, net.node("MatMul", mixed, net.weight(net.drawn(16, 16).T.copy()), name="project"))
    wide = net.node("MatMul", tokens, net.weight(net.drawn(32, 16).T.copy()), name="widen")
    gate = net.node("Erf", net.node("Div", wide, net.weight(np.float32(np.sqrt(2)))))
    wide = net.node(
        "Mul", wide, net.node("Mul", net.node("Add", gate, net.weight(np.float32(1))), net.weight(np.float32(0.5)))
    )
    tokens = net.node("Add", tokens, net.node("MatMul", wide, net.weight(net.drawn(16, 32).T.copy()), name="narrow"))
    net.output(net.node("MatMul", tokens, net.weight(net.drawn(6, 16).T.copy()), name="classes"), "logits", [1, 16, 6])
    net.output(
        net.node("Sigmoid", net.node("MatMul", tokens, net.weight(net.drawn(4, 16).T.copy()), name="boxes")),
        "boxes",
        [1, 16, 4],
    )
    return net


def anchors() -> Sketch:
    """YOLOv5's head: five dimensions, a sigmoid over all, split, grids and anchors in the graph."""
    net = picture(64)
    rows = []
    for level, stride in enumerate((8, 16)):
        cells = 64 // stride
        body = net.node(
            "Relu", net.convolved("images", 3, 8, stride, name=f"body{level}", strides=[stride] * 2, pads=[0] * 4)
        )
        raw = net.convolved(body, 8, 3 * 8, 1, name=f"head{level}", pads=[0] * 4)
        five = net.node("Transpose", net.reshape(raw, 1, 3, 8, cells, cells), perm=[0, 1, 3, 4, 2])
        pieces = net.node("Split", net.node("Sigmoid", five), net.weight(np.int64([2, 2, 4])), outputs=3, axis=4)
        grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).reshape(1, 1, cells, cells, 2)
        centre = net.node(
            "Add", net.node("Mul", pieces[0], net.weight(np.float32(2))), net.weight(grid.astype(np.float32) - 0.5)
        )
        centre = net.node("Mul", centre, net.weight(np.float32(stride)))
        size = net.node("Pow", net.node("Mul", pieces[1], net.weight(np.float32(2))), net.weight(np.float32(2)))
        size = net.node("Mul", size, net.weight(np.float32([[10, 13], [16, 30], [33, 23]]).reshape(1, 3, 1, 1, 2)))
        rows.append(net.reshape(net.node("Concat", centre, size, pieces[2], axis=4), 1, -1, 8))
    net.output(net.node("Concat", *rows, axis=1), "output", [1, 240, 8])
    return net


def polynomials() -> Sketch:
    """Lanes as coefficients: a pooled vector and a fully connected head."""
    net = picture()
    pooled = net.node("Flatten", net.node("GlobalAveragePool", stem(net)))
    head = net.node("Gemm", pooled, net.weight(net.drawn(35, 8)), net.bias(35), transB=1, name="lanes")
    net.output(net.reshape(head, 1, 5, 7), "lanes", [1, 5, 7])
    return net


def gated() -> Sketch:
    """An If whose branches hold convolutions and reach out for tensors around them, one of them in 8 bits."""
    net = picture()
    body = stem(net)
    tensor = net.node("Relu", net.convolved(body, 8, 8, name="mid"), name="mid_relu")
    branches = {}
    for name in ("then", "else"):
        weight = helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [8, 8, 1, 1], net.drawn(8, 8, 1, 1).ravel())
        node = helper.make_node("Conv", [tensor, f"{name}_w"], [f"{name}_c"], f"{name}_conv")
        added = helper.make_node("Add", [f"{name}_c", body], [f"{name}_out"], f"{name}_add")
        result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, 8, 32, 32])
        branches[f"{name}_branch"] = helper.make_graph([node, added], name, [], [result], [weight])
    bright = net.node("Greater", net.node("ReduceMean", "images", keepdims=0), net.weight(np.float32(0.5)))
    tensor = net.node("If", bright, name="gate", **branches)
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def looped() -> Sketch:
    """A Loop that refines three times what a convolution gave."""
    net = picture()
    tensor = net.convolved(stem(net), 8, 8, name="mid")
    values = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("held", TensorProto.FLOAT, [1, 8, 32, 32]),
    ]
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"], "keep"),
        helper.make_node("Tanh", ["held"], ["squashed"], "squash"),
        helper.make_node("Add", ["squashed", tensor], ["refined"], "refine"),
    ]
    results = [
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("refined", TensorProto.FLOAT, [1, 8, 32, 32]),
    ]
    body = helper.make_graph(nodes, "body", values, results)
    tensor = net.node("Loop", net.weight(np.int64(3)), net.weight(np.bool_(True)), tensor, name="loop", body=body)
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def selecting() -> Sketch:
    """Boxes chosen in the graph: NonMaxSuppression, and outputs whose length only the picture decides."""
    net = picture()
    raw = net.convolved(stem(net), 8, 6, 4, name="head", strides=[4, 4], pads=[0] * 4)
    flat = net.reshape(raw, 1, 6, 64)
    boxes, scores = net.node("Split", flat, net.weight(np.int64([4, 2])), outputs=2, axis=1)
    boxes = net.node("Transpose", net.node("Sigmoid", boxes), perm=[0, 2, 1])
    limits = [net.weight(np.int64(10)), net.weight(np.float32(0.5)), net.weight(np.float32(0.1))]
    kept = net.node("NonMaxSuppression", boxes, net.node("Sigmoid", scores), *limits)
    net.output(boxes, "boxes", [1, 64, 4])
    net.output(kept, "kept", ["count", 3], TensorProto.INT64)
    return net


def outputs_inside() -> Sketch:
    """Features that are given out and read on, before and behind their Relu."""
    net = picture()
    raw = net.convolved("images", 3, 8, name="first")
    tensor = net.node("Relu", raw)
    net.image(raw, "raw").image(tensor, "features")
    return net.image(net.convolved(tensor, 8, 4, name="second"), "head")


def gates() -> Sketch:
    """Activations of all kinds: HardSwish, Mish, PRelu, ELU, squeeze and excitation."""
    net = picture()
    tensor = net.convolved("images", 3, 8, name="first")
    tensor = net.node("HardSwish", tensor)
    tensor = net.node(
        "PRelu", net.convolved(tensor, 8, 8, name="second"), net.weight(np.full((8, 1, 1), 0.2, np.float32))
    )
    pooled = net.convolved(net.node("GlobalAveragePool", tensor), 8, 8, 1, name="squeeze")
    tensor = net.node("Mul", tensor, net.node("HardSigmoid", pooled, alpha=1 / 6, beta=0.5))
    tensor = net.convolved(tensor, 8, 8, name="third")
    tensor = net.node("Mul", tensor, net.node("Tanh", net.node("Softplus", tensor)))
    tensor = net.node("Elu", net.convolved(tensor, 8, 8, name="fourth"))
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def recurrent() -> Sketch:
    """A GRU over the rows of features."""
    net = picture()
    rows = net.node("Transpose", net.reshape(stem(net), 1, 32, 256), perm=[1, 0, 2])
    weights = [net.weight(net.drawn(1, 48, 256)), net.weight(net.drawn(1, 48, 16))]
    states, _ = net.node("GRU", rows, *weights, name="gru", outputs=2, hidden_size=16)
    flat = net.reshape(states, 32, 16)
    net.output(net.node("MatMul", flat, net.weight(net.drawn(4, 16).T.copy()), name="head"), "out", [32, 4])
    return net


# Numbers that leave nothing to quantize


def silent() -> Sketch:
    """A branch that is zero whatever the picture, read by a convolution and a matrix product, and weights of zero."""
    net = picture()
    tensor = stem(net)
    dead = net.node("Mul", tensor, net.weight(np.float32(0)))
    silenced = net.node("Conv", dead, net.weight(net.drawn(8, 8, 3, 3)), name="of_silence", pads=[1] * 4)
    nothing = net.node("Conv", tensor, net.weight(np.zeros((8, 8, 1, 1), np.float32)), net.bias(8), name="of_zeros")
    total = net.node("Add", net.node("Add", tensor, silenced), nothing)
    return net.image(net.convolved(total, 8, 4, name="head"))


def tiny_and_huge() -> Sketch:
    """Tensors of 1e-18 and 1e18 on the way, in front of activations that keep them from being multiplied out."""
    net = picture()
    tensor = net.node("Mul", stem(net), net.weight(np.float32(1e-18)))
    tensor = net.node("Relu", net.convolved(tensor, 8, 8, name="tiny", bias=False))
    tensor = net.node(
        "Relu",
        net.node(
            "Mul", net.node("Relu", net.node("Mul", tensor, net.weight(np.float32(1e18)))), net.weight(np.float32(1e18))
        ),
    )
    tensor = net.node("Relu", net.convolved(tensor, 8, 8, name="huge", bias=False))
    return net.image(net.convolved(net.node("Mul", tensor, net.weight(np.float32(1e-18))), 8, 4, name="head"))


def uneven_channels() -> Sketch:
    """One channel a thousand times as wide as its neighbours, one without any weight, one negative throughout."""
    net = picture()
    weight = net.drawn(8, 3, 3, 3)
    weight[0] *= 1000
    weight[1] = 0
    tensor = net.node("Conv", "images", net.weight(weight), net.bias(8), name="uneven", pads=[1] * 4)
    later = net.drawn(4, 8, 3, 3)
    later[:, 0] /= 1000
    return net.image(net.node("Conv", tensor, net.weight(later), net.bias(4), name="head", pads=[1] * 4))


def masked() -> Sketch:
    """Attention under a mask of minus infinity, as exporters write it."""
    net = picture()
    tokens = net.reshape(net.convolved("images", 3, 16, 8, name="patches", strides=[8, 8], pads=[0] * 4), 1, 16, 16)
    keep = net.weight(np.tril(np.ones((16, 16), bool)))
    scores = net.node("MatMul", tokens, net.weight(net.drawn(16, 16).T.copy()), name="scores")
    scores = net.node("Where", keep, scores, net.weight(np.float32(-np.inf)))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), net.weight(net.drawn(16, 16).T.copy()), name="mix")
    net.output(net.node("MatMul", mixed, net.weight(net.drawn(4, 16).T.copy()), name="head"), "out", [1, 16, 4])
    return net


# What graphs may hold beside


def of_half_precision() -> Sketch:
    """All in float16: nothing here to quantize, since ranges are learnt in float32."""
    net = Net(images=([1, 3, 32, 32], TensorProto.FLOAT16))
    weight = net.weight(net.drawn(4, 3, 3, 3).astype(np.float16))
    tensor = net.node("Conv", "images", weight, name="half", pads=[1] * 4)
    net.output(tensor, "out", [1, 4, 32, 32], TensorProto.FLOAT16)
    return net


def stored_in_half() -> Sketch:
    """Weights kept in float16 and cast when they are used, one of them large."""
    net = picture(8)

    def cast(*shape):
        return net.node("Cast", net.weight(net.drawn(*shape).astype(np.float16)), to=TensorProto.FLOAT)

    tensor = net.node("Relu", net.node("Conv", "images", cast(8, 3, 3, 3), name="first", pads=[1] * 4))
    tensor = net.node("Relu", net.node("Conv", tensor, cast(1200, 8, 1, 1), name="wide"))
    return net.image(net.node("Conv", tensor, cast(1000, 1200, 1, 1), name="large"))


def quantized_already() -> Sketch:
    net = picture()
    scale, zero = net.weight(np.float32(0.02)), net.weight(np.uint8(0))
    codes = net.node("QuantizeLinear", "images", scale, zero)
    weight = net.weight(np.clip(40 * net.drawn(8, 3, 3, 3), -127, 127).astype(np.int8))
    weight = net.node("DequantizeLinear", weight, net.weight(np.float32(0.02)), net.weight(np.int8(0)))
    tensor = net.node("Conv", net.node("DequantizeLinear", codes, scale, zero), weight, name="theirs", pads=[1] * 4)
    return net.image(net.convolved(net.node("Relu", tensor), 8, 4, name="ours"))


def dynamic_bias() -> Sketch:
    net = picture()
    tensor = stem(net)
    bias = net.reshape(net.node("GlobalAveragePool", tensor), 8)
    tensor = net.node("Conv", tensor, net.weight(net.drawn(8, 8, 3, 3)), bias, name="shifted", pads=[1] * 4)
    return net.image(net.convolved(net.node("Relu", tensor), 8, 4, name="head"))


def dynamic_transposed() -> Sketch:
    """ConvTranspose and Gemm whose weights the picture decides."""
    net = picture()
    tensor = stem(net)
    kernel = net.reshape(
        net.convolved(net.node("GlobalAveragePool", tensor), 8, 256, 1, name="maker", pads=[0] * 4), 8, 8, 2, 2
    )
    tensor = net.node("ConvTranspose", tensor, kernel, name="up", strides=[2, 2])
    tensor = net.convolved(tensor, 8, 4, name="mid")
    flat = net.reshape(net.node("GlobalAveragePool", tensor), 1, 4)
    weight = net.reshape(
        net.convolved(net.node("GlobalAveragePool", tensor), 4, 16, 1, name="second", pads=[0] * 4), 4, 4
    )
    net.output(net.node("Gemm", flat, weight, name="product"), "out", [1, 4])
    return net


def pooled_with_places() -> Sketch:
    """MaxPool that gives its places too, and MaxUnpool that uses them."""
    net = picture()
    pooled, places = net.node("MaxPool", stem(net), outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    tensor = net.node("Relu", net.convolved(pooled, 8, 8, name="mid"))
    tensor = net.node("MaxUnpool", tensor, places, kernel_shape=[2, 2], strides=[2, 2])
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def joined_twice() -> Sketch:
    """A tensor added to itself and joined with itself, an input beside a constant, a sum of two convolutions."""
    net = picture()
    tensor = stem(net)
    tensor = net.node("Add", tensor, tensor)
    tensor = net.node("Concat", tensor, tensor, net.weight(np.ones((1, 2, 32, 32), np.float32)), axis=1)
    left, right = (net.convolved(tensor, 18, 8, name=name) for name in ("left", "right"))
    tensor = net.node("Relu", net.node("Add", left, right))
    tensor = net.node("Mul", tensor, tensor)
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def odd_names() -> Sketch:
    """Names that are paths, that look like those made here, that are not ASCII, and a node named as a tensor."""
    net = picture()
    tensor = "images"
    for name in ("/backbone/Conv", "images::quantize", "straße 1", "t4_0"):
        channels = 3 if tensor == "images" else 8
        tensor = net.node("Relu", net.convolved(tensor, channels, 8, name=name))
    return net.image(net.convolved(tensor, 8, 4, name="t0_0::weight"))


def whole_sequences() -> Sketch:
    """A sequence made and taken apart on the way."""
    net = picture()
    parts = net.node("SplitToSequence", stem(net), net.weight(np.int64(4)), axis=1)
    first = net.node("SequenceAt", parts, net.weight(np.int64(0)))
    tensor = net.node("Concat", first, net.node("SequenceAt", parts, net.weight(np.int64(1))), axis=1)
    return net.image(net.convolved(tensor, 8, 4, name="head"))


def untouched_outputs() -> Sketch:
    """The picture and a constant given out as they are."""
    net = picture()
    net.image(net.convolved(stem(net), 8, 4, name="head"))
    net.image("images", "echo")
    net.output(net.weight(np.float32([1, 2])), "constant", [2])
    return net


def mask_of_padding() -> Sketch:
    """A second input of integers, the mask of a padded picture, that becomes a bias of finfo.min for attention."""
    net = Net(images=[1, 3, 32, 32], pixel_mask=([1, 16], TensorProto.INT64))
    tokens = net.reshape(net.convolved("images", 3, 16, 8, name="patches", strides=[8, 8], pads=[0] * 4), 1, 16, 16)
    open_ = net.node("Cast", "pixel_mask", to=TensorProto.FLOAT)
    away = net.node("Mul", net.node("Sub", net.weight(np.float32(1)), open_), net.weight(np.finfo(np.float32).min))
    scores = net.node("MatMul", tokens, net.weight(net.drawn(16, 16).T.copy()), name="scores")
    scores = net.node("Add", scores, net.reshape(away, 1, 1, 16))
    mixed = net.node("MatMul", net.node("Softmax", scores, axis=-1), net.weight(net.drawn(16, 16).T.copy()), name="mix")
    net.output(net.node("MatMul", mixed, net.weight(net.drawn(4, 16).T.copy()), name="head"), "out", [1, 16, 4])
    net.output(net.node("ArgMax", mixed, axis=-1, keepdims=0), "best", [1, 16], TensorProto.INT64)
    return net


def reaching_out() -> Sketch:
    """Opset 11: an If whose bodies hold operators whose attributes became inputs at 13."""
    net = picture()
    tensor = net.convolved(stem(net), 8, 8, name="mid")
    branches = {}
    for name in ("then", "else"):
        result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, [1, 8, 32, 32])
        nodes = [
            helper.make_node("Unsqueeze", [tensor], [f"{name}_wide"], f"{name}_wide", axes=[0]),
            helper.make_node("Squeeze", [f"{name}_wide"], [f"{name}_out"], f"{name}_flat", axes=[0]),
        ]
        branches[f"{name}_branch"] = helper.make_graph(nodes, name, [], [result])
    bright = net.node("Greater", net.node("ReduceMean", "images", keepdims=0), net.weight(np.float32(0.5)))
    return net.image(net.convolved(net.node("If", bright, name="gate", **branches), 8, 4, name="head"))


def random() -> Sketch:
    net = picture()
    noise = net.node("RandomNormalLike", stem(net), name="noise")
    return net.image(net.convolved(noise, 8, 4, name="head"))


def indivisible() -> Sketch:
    """A division of nothing by nothing on every picture."""
    net = picture()
    tensor = stem(net)
    nothing = net.node("Sub", tensor, tensor)
    return net.image(net.convolved(net.node("Div", nothing, nothing, name="ratio"), 8, 4, name="head"))


def chosen_hard() -> Sketch:
    """Opset 11: Hardmax over all that follows, which the converter of onnx takes for one over a single axis."""
    net = picture()
    return net.image(net.node("Hardmax", net.convolved(stem(net), 8, 4, name="head"), axis=1))


def bilinear(operator: str) -> Sketch:
    """What PyTorch wrote for bilinear upsampling before opset 11: corners of pixels meet, not their middles."""
    net = picture()
    tensor = net.node(operator, stem(net), net.weight(np.float32([1, 1, 2, 2])), mode="linear")
    return net.image(net.convolved(tensor, 8, 4, name="head"))


SIZES = {"orig_target_sizes": np.array([[480, 640]], np.int64)}
PADDED = {"pixel_mask": np.array([[1] * 12 + [0] * 4], np.int64)}
HEAD = ("head",)
OF_9, OF_10, OF_11, OF_12 = ({"opset": 9 + n, "ir_version": ir} for n, ir in enumerate((4, 5, 6, 7)))
NO_TRANSPOSED_KERNEL = {"onnxrt": {"up": "onnxrt has no integer kernel for ConvTranspose"}}
NO_GRU_KERNEL = {kind: {"gru": f"{kind} has no integer kernel for GRU"} for kind in ("onnxrt", "tensorrt")}
PRODUCTS_OF_ACTIVATIONS = {"scores": DYNAMIC, "mixed": DYNAMIC}

ARCHITECTURES: dict[str, Architecture] = {
    **{
        f"opset {opset}": Architecture(everyday, {"opset": opset, "ir_version": 4 if opset < 11 else 8}, ends=HEAD)
        for opset in range(9, 22)
    },
    "old operators, opset 9": Architecture(old_operators, OF_9, ends=("mid", "head")),
    "bilinear Upsample, opset 9": Architecture(lambda: bilinear("Upsample"), OF_9, ends=HEAD),
    "bilinear Resize, opset 10": Architecture(lambda: bilinear("Resize"), OF_10, ends=HEAD),
    "nearest Resize, opset 10": Architecture(resized, OF_10, ends=HEAD),
    "Softmax, opset 11": Architecture(softmax_of_four_dimensions, OF_11, ends=HEAD),
    "Softmax, opset 12": Architecture(softmax_of_four_dimensions, OF_12, ends=HEAD),
    "If, opset 11": Architecture(reaching_out, OF_11, ends=HEAD),
    "NHWC": Architecture(exported_by_tensorflow, ends=("conv2",)),
    "rectified late": Architecture(rectified_late, ends=HEAD),
    "Constant nodes": Architecture(constants_in_nodes, ends=("second",)),
    "normalised before": Architecture(lambda: normalised_apart(before=True), ends=HEAD),
    "normalised behind a sum": Architecture(lambda: normalised_apart(before=False), ends=HEAD),
    "shared weights": Architecture(shared_weights, ends=("head_near", "head_far")),
    "weights read by others": Architecture(weights_read_by_others, ends=("second",)),
    "weights stored in half": Architecture(stored_in_half, ends=("large",)),
    "without bias": Architecture(without_bias, ends=("second",)),
    "dynamic bias": Architecture(dynamic_bias, ends=HEAD),
    "dynamic weights": Architecture(dynamic_weights, unfit={"dynamic": DYNAMIC}, ends=HEAD),
    "dynamic ConvTranspose": Architecture(
        dynamic_transposed,
        unfit={"product": DYNAMIC},
        unfit_on={**NO_TRANSPOSED_KERNEL, "tensorrt": {"up": DYNAMIC}},
    ),
    "ConvTranspose": Architecture(transposed, unfit_on=NO_TRANSPOSED_KERNEL, ends=HEAD),
    "ConvTranspose without bias": Architecture(
        lambda: transposed(bias=False), unfit_on=NO_TRANSPOSED_KERNEL, ends=HEAD
    ),
    "ConvTranspose of two groups": Architecture(lambda: transposed(group=2), unfit_on=NO_TRANSPOSED_KERNEL, ends=HEAD),
    "ConvTranspose of two groups, normalised": Architecture(
        transposed_and_normalised, unfit_on=NO_TRANSPOSED_KERNEL, ends=HEAD
    ),
    "grouped": Architecture(grouped, ends=HEAD),
    "Conv of one dimension": Architecture(one_dimensional, ends=HEAD),
    "Conv of three dimensions": Architecture(three_dimensional, ends=HEAD),
    "Gemm": Architecture(fully_connected, ends=("matmul",)),
    "odd products": Architecture(
        odd_products,
        unfit={
            "left": "its constant stands on the left",
            "three": "its weights have 3 dimensions, expected 2",
            "vector": "its weights have 1 dimensions, expected 2",
        },
    ),
    "windows": Architecture(windows, ends=HEAD),
    "windows, opset 18": Architecture(windows, {"opset": 18}, ends=HEAD),
    "attention": Architecture(attention, unfit=PRODUCTS_OF_ACTIVATIONS, ends=("classes", "boxes")),
    "attention, opset 21": Architecture(
        attention, {"opset": 21, "ir_version": 10}, unfit=PRODUCTS_OF_ACTIVATIONS, ends=("classes", "boxes")
    ),
    "masked": Architecture(masked, ends=HEAD),
    "mask of padding": Architecture(mask_of_padding, fed=PADDED, ends=("mix", "head")),
    "RT-DETR": Architecture(rt_detr, fed=SIZES, ends=("MatMul_3", "MatMul_8")),
    "query logits": Architecture(query_logits, ends=("MatMul_3", "MatMul_5")),
    "YOLOX": Architecture(yolox, ends=tuple(f"Conv_{n}" for n in (2, 3, 5, 11, 12, 14, 20, 21, 23))),
    "anchors": Architecture(anchors, ends=("head0", "head1")),
    "polynomials": Architecture(polynomials, ends=("lanes",)),
    "If": Architecture(gated, unfit={"gate": "control flow: what it runs stays float, Conv else_conv too"}, ends=HEAD),
    "Loop": Architecture(looped, unfit={"head": "its input is not float32 of a fixed shape"}),
    "sequences": Architecture(whole_sequences, ends=HEAD),
    "NonMaxSuppression": Architecture(selecting, ends=HEAD, agreement=0.8),
    "MaxUnpool": Architecture(pooled_with_places, ends=HEAD, sqnr_db=12.0),
    "outputs inside": Architecture(outputs_inside, kinds=("onnxrt",)),
    "untouched outputs": Architecture(untouched_outputs, ends=HEAD),
    "joined twice": Architecture(joined_twice, ends=HEAD),
    "gates": Architecture(gates, ends=HEAD),
    "GRU": Architecture(recurrent, unfit_on=NO_GRU_KERNEL, ends=HEAD),
    "quantized already": Architecture(quantized_already, unfit={"theirs": DYNAMIC}, kinds=("onnxrt",)),
    "odd names": Architecture(odd_names, ends=("t0_0:weight",)),
    "silent": Architecture(silent, ends=HEAD),
    "tiny and huge": Architecture(tiny_and_huge, ends=HEAD),
    "uneven": Architecture(uneven_channels, ends=HEAD, sqnr_db=0.0),
}
