"""A guess never stands alone: every field comes with what it was guessed from, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import yaml

from perception.model_spec import ModelSpec

Confidence = Literal["certain", "likely", "unsure"]


@dataclass(frozen=True, slots=True)
class Clue:
    """One field of the draft.

    Attributes:
        field: dotted path in the ModelSpec, such as `picture.colour`.
        value: what stands in the draft.
        why: what it was guessed from and, where it is unsure, what to check.
        confidence: certain: the file says it; likely: its family is known to do so; unsure: somebody must look.
    """

    field: str
    value: object
    why: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Guess:
    """A draft ModelSpec and the reasons for every field of it.

    Attributes:
        family: what kind of network it seems to be, for people.
        spec: the draft; None where no input can take a colour picture.
        clues: one for each field, in the order of the spec.
    """

    family: str
    spec: ModelSpec | None
    clues: tuple[Clue, ...]

    @property
    def unsure(self) -> tuple[Clue, ...]:
        """What somebody must look at before the spec is used."""
        return tuple(clue for clue in self.clues if clue.confidence == "unsure")

    def clue(self, field: str) -> Clue:
        """The clue for a field.

        Raises:
            KeyError: there is none.
        """
        for clue in self.clues:
            if clue.field == field:
                return clue
        raise KeyError(field)

    def to_yaml(self) -> str:
        """The draft as YAML; every field that is not certain carries its reason as a comment.

        Raises:
            ValueError: there is no spec.
        """
        if self.spec is None:
            raise ValueError("no spec was drafted")
        reasons = {clue.field: clue for clue in self.clues if clue.confidence != "certain"}
        head = [
            f"# Draft by tollgate inspect. It looks like: {self.family}.",
            "# Check what is marked UNSURE: a model fed otherwise than it was trained loses accuracy in silence.",
        ]
        return "\n".join([*head, *_lines(self.spec.model_dump(mode="json"), reasons, "", "")]) + "\n"


def _lines(fields: dict[str, object], reasons: dict[str, Clue], path: str, indent: str) -> Iterator[str]:
    """YAML lines of a mapping, with a comment above each field that has a reason of its own."""
    last = None
    for key, value in fields.items():
        clue = reasons.get(f"{path}{key}")
        same = clue is not None and last is not None and (clue.why, clue.confidence) == (last.why, last.confidence)
        if clue is not None and not same:
            yield f"{indent}# {_mark(clue)}: {clue.why}"
        last = clue
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, reasons, f"{path}{key}.", indent + "  ")
            continue
        lines = _dumped(key, value)
        if clue is not None and same:
            lines[0] += f"  # {_mark(clue)}, as above"
        yield from (indent + line for line in lines)


def _mark(clue: Clue) -> str:
    return "UNSURE" if clue.confidence == "unsure" else clue.confidence


def _dumped(key: str, value: object) -> list[str]:
    flow = None if isinstance(value, list) else False
    return yaml.safe_dump({key: value}, default_flow_style=flow, allow_unicode=True, width=110).splitlines()
