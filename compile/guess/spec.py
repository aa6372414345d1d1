"""All clues together make the draft of a ModelSpec."""

from __future__ import annotations

import re

from compile.guess.clue import Clue, Confidence, Guess
from compile.guess.families import recognise
from compile.guess.finding import UNKNOWN_DECODER, Finding
from compile.guess.names import guess_classes
from compile.guess.pixels import guess_pixels
from compile.guess.seen import Picture, Seen, find_picture
from compile.importer import ImportedModel
from perception.engines.engine import TensorInfo
from perception.model_spec import Decoding, ModelSpec, PictureInput, SizeInput


def guess_spec(imported: ImportedModel, name: str) -> Guess:
    """Draft how a model wants its pixels and how its outputs read.

    Args:
        imported: a cleaned model.
        name: what the spec is to be called, such as the file's stem; made fit where it is not.

    Returns:
        The draft with a clue for every field; without a draft where no input can take a colour picture.
    """
    seen = Seen.of(imported)
    picture = find_picture(seen)
    if picture is None:
        shapes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in seen.inputs)
        why = f"no input can take a colour picture: got {shapes}, expected [1, 3, H, W] or [1, H, W, 3]"
        return Guess("no camera model", None, (Clue("picture.tensor", None, why, "unsure"),))
    finding = recognise(seen, picture)
    clues = [
        *_header(seen, finding, name),
        *_picture(picture),
        *guess_pixels(seen, picture, finding),
        *_size_input(seen, picture),
        *_decoding(finding),
        guess_classes(finding.class_count, finding.task, seen.metadata),
    ]
    return Guess(finding.title, _spec({clue.field: clue.value for clue in clues}), tuple(clues))


def _header(seen: Seen, finding: Finding, name: str) -> list[Clue]:
    fit = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-") or "model"
    licence = seen.metadata.get("license", "").strip()
    source = ", ".join(filter(None, (seen.metadata.get("author", ""), seen.metadata.get("description", ""))))
    noted, silent = "noted by the exporter", "the file does not say; write it in: without a licence no release"
    return [
        Clue("name", fit, "the file's name", "certain"),
        Clue("task", finding.task, finding.why, finding.confidence),
        Clue("licence", licence or "unknown", noted if licence else silent, "likely" if licence else "unsure"),
        Clue("source", source or "unknown", noted if source else silent, "likely" if source else "unsure"),
    ]


def _picture(picture: Picture) -> list[Clue]:
    order = "first" if picture.layout == "NCHW" else "last"
    why = f"input {picture.tensor} is {picture.dtype} with its 3 channels {order}"
    fields = ("tensor", "layout", "dtype", "width_px", "height_px")
    return [Clue(f"picture.{field}", getattr(picture, field), why, "certain") for field in fields]


def _size_input(seen: Seen, picture: Picture) -> list[Clue]:
    """A second input of two numbers asks for a picture's size; any other cannot be fed by a spec."""
    clues: list[Clue] = []
    for tensor in seen.inputs:
        if tensor.name == picture.tensor:
            continue
        size = tensor.shape in ((1, 2), (2,)) and tensor.dtype in ("int64", "int32", "float32")
        if clues or not size or "scale" in tensor.name.lower():
            why = f"input {tensor.name} {list(tensor.shape)} cannot be fed by a ModelSpec; export the model without it"
            return [Clue("size_input", None, why, "unsure")]
        clues = _size_clues(tensor)
    return clues or [Clue("size_input", None, "there is one input only", "certain")]


def _size_clues(tensor: TensorInfo) -> list[Clue]:
    known = tensor.name == "orig_target_sizes"
    height_first = any(word in tensor.name.lower() for word in ("im_shape", "hw", "height"))
    order = "height_width" if height_first else "width_height"
    why = f"input {tensor.name} {list(tensor.shape)} of {tensor.dtype} asks for the picture's size"
    sure: Confidence = "likely" if known else "unsure"
    order_why = (
        "as RT-DETR feeds it (references/deploy)" if known else "a guess; feed a wide picture and check the boxes"
    )
    return [
        Clue("size_input.tensor", tensor.name, why, "likely"),
        Clue("size_input.order", order, order_why, sure),
        Clue("size_input.dtype", tensor.dtype, why, "certain"),
    ]


def _decoding(finding: Finding) -> list[Clue]:
    """Clues for everything under `decoding`."""
    found = [
        Clue(f"decoding.{field}", value, finding.why, finding.confidence)
        for field, value in (
            ("decoder", finding.decoder),
            ("tensors", finding.tensors),
            ("strides_px", finding.strides_px),
            ("options", finding.options),
        )
    ]
    suppressed = f"as {finding.title} is published" if finding.nms_iou else "this family leaves no duplicates"
    nms_sure: Confidence = "unsure" if finding.decoder == UNKNOWN_DECODER else "likely"
    choice = "a usual choice, not a fact of the model: weigh misses against false alarms"
    return [
        *found,
        Clue("decoding.score_threshold", 0.3, choice, "likely"),
        Clue("decoding.nms_iou", finding.nms_iou, suppressed, nms_sure),
        Clue("decoding.nms_across_classes", False, choice, "likely"),
        Clue("decoding.max_detections", 300, choice, "likely"),
    ]


def _spec(fields: dict[str, object]) -> ModelSpec:
    """The spec made of the clues' values by dotted path."""

    def part(prefix: str) -> dict[str, object]:
        return {path[len(prefix) :]: value for path, value in fields.items() if path.startswith(prefix)}

    size = part("size_input.")
    return ModelSpec(
        **{name: fields[name] for name in ("name", "task", "licence", "source", "classes")},
        picture=PictureInput(**part("picture.")),
        size_input=SizeInput(**size) if size else None,
        decoding=Decoding(**part("decoding.")),
    )
