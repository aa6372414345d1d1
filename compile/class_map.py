"""Which of a model's classes answers to which label: models and ground truth rarely agree on names.

A YAML file::

    format: tollgate-classes/1
    groups:
      vehicles: {model: [car, bus, truck], labels: [Car, Van], ignored: [Truck, DontCare]}
    minimum_height_px: 25
    vulnerable: [persons]
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from compile.labels import LabelledObject
from hw_profiles.yaml_files import Refusal, model_from_yaml
from perception.errors import LabelError

_PEOPLE = ("person", "persons", "people", "pedestrian", "pedestrians", "person_sitting", "child", "wheelchair")
_RIDERS = ("cyclist", "cyclists", "bicyclist", "rider", "riders", "motorcyclist", "scooter")
VULNERABLE_WORDS = frozenset(_PEOPLE + _RIDERS)
"""Names of road users without a car around them, in the data sets of the field: COCO, KITTI, Cityscapes, nuScenes."""

_REFUSAL = Refusal(LabelError, "docs/model_spec.md")
UNLABELLED, UNLABELLED_VALUE = "unlabelled", 255


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassGroup(_Strict):
    """What is scored together.

    Attributes:
        model: classes of the model that answer.
        labels: classes of the labels that are asked for.
        ignored: classes of the labels that are neither right nor wrong to answer to.
    """

    model: tuple[str, ...] = Field(min_length=1)
    labels: tuple[str, ...] = Field(min_length=1)
    ignored: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asked_or_ignored(self) -> ClassGroup:
        if both := sorted(set(self.labels) & set(self.ignored)):
            raise ValueError(f"{', '.join(both)} stands under labels and under ignored")
        return self


class ClassMap(_Strict):
    """Groups of classes that are scored, each by its own figure.

    Attributes:
        groups: name → classes.
        minimum_height_px: labelled boxes lower than this are ignored, detections lower than this are left out.
        maximum_occlusion: labelled objects of which a larger share is hidden are ignored, 0..1.
        vulnerable: groups of road users without a car around them; None takes those whose name, or all of whose label
            classes, are among `VULNERABLE_WORDS`.
        mask_values: what a pixel value of a mask is called; needed for masks alone.
    """

    format: Literal["tollgate-classes/1"] = "tollgate-classes/1"
    groups: dict[str, ClassGroup] = Field(min_length=1)
    minimum_height_px: float = Field(default=0, ge=0)
    maximum_occlusion: float = Field(default=1, ge=0, le=1)
    vulnerable: tuple[str, ...] | None = None
    mask_values: dict[Annotated[int, Field(ge=0, le=255)], str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _vulnerable_are_groups(self) -> ClassMap:
        if unknown := sorted(set(self.vulnerable or ()) - set(self.groups)):
            raise ValueError(f"vulnerable: {unknown[0]} is no group, expected some of {', '.join(self.groups)}")
        return self

    @classmethod
    def load(cls, path: Path) -> ClassMap:
        """Read a class map.

        Raises:
            LabelError: the file is missing, no YAML, or has missing, unknown or impossible fields.
        """
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LabelError(f"{path}: no readable class map ({error}); write one as in docs/model_spec.md") from error
        return model_from_yaml(cls, content, where=str(path), refusal=_REFUSAL)

    @classmethod
    def identity(cls, classes: Sequence[str]) -> ClassMap:
        """Every class by itself, labels and model calling it the same; in masks, 255 is unlabelled."""
        return cls(
            groups={name: ClassGroup(model=(name,), labels=(name,), ignored=(UNLABELLED,)) for name in classes},
            mask_values={**dict(enumerate(classes)), UNLABELLED_VALUE: UNLABELLED},
        )

    def vulnerable_groups(self) -> tuple[str, ...]:
        """The groups of vulnerable road users, as the map says or by their names."""
        if self.vulnerable is not None:
            return self.vulnerable
        return tuple(
            name
            for name, group in self.groups.items()
            if name.lower() in VULNERABLE_WORDS or all(label.lower() in VULNERABLE_WORDS for label in group.labels)
        )

    def asks_for(self, labelled: LabelledObject) -> bool:
        """Whether an object is tall and visible enough to be missed; what labels do not say counts as visible."""
        _, top, _, bottom = labelled.box_px
        hidden = labelled.occlusion or 0.0
        return not labelled.ignore and bottom - top >= self.minimum_height_px and hidden <= self.maximum_occlusion

    def require_model_classes(self, classes: Collection[str]) -> None:
        """Refuse a map for another model.

        Raises:
            LabelError: the model lacks a class that the map counts on.
        """
        wanted = {name for group in self.groups.values() for name in group.model}
        if missing := sorted(wanted - set(classes)):
            raise LabelError(
                f"class map: the model has no class {', '.join(missing)}, it has {_some(classes)}; "
                "correct the groups' model classes"
            )

    def require_label_classes(self, names: Collection[str], *, where: str) -> None:
        """Refuse labels with a class the map is silent about: it would count as background unseen.

        Raises:
            LabelError: a class is in no group and not ignored by any.
        """
        known = {name for group in self.groups.values() for name in (*group.labels, *group.ignored)}
        if unknown := sorted(set(names) - known):
            raise LabelError(
                f"{where}: class {', '.join(unknown)} is neither asked for nor ignored, known are {_some(known)}; "
                "give a --class-map that names it under labels or ignored of a group (docs/model_spec.md)"
            )


def _some(names: Collection[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:12]) + (f" and {len(ordered) - 12} more" if len(ordered) > 12 else "")
