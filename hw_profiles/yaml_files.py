"""YAML at the edge: read so that nothing is lost in silence, written so that a person can review it by line.

Profiles, ModelSpecs, drives, policies and class maps all come through here, so all of them refuse alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hw_profiles.errors import TollgateError

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Refusal:
    """How one kind of file refuses: which error it raises and which page explains its fields."""

    error: type[TollgateError]
    page: str


def model_from_yaml(model: type[Model], text: str, *, where: str, refusal: Refusal) -> Model:
    """Read a document into a model.

    Raises:
        TollgateError: `refusal.error`: no YAML, a key written twice, or what the model refuses, all in one line.
    """
    return model_from_fields(model, _document(text, where, refusal), where=where, refusal=refusal)


def model_from_fields(model: type[Model], fields: object, *, where: str, refusal: Refusal) -> Model:
    """The same from fields that were read already.

    Raises:
        TollgateError: `refusal.error`: what the model refuses, all in one line.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise refusal.error(f"{where}: {complaints_of(error)}; {refusal.page} explains the fields") from error


def complaints_of(error: ValidationError) -> str:
    """All complaints of pydantic in one line: field, got, expected."""
    return "; ".join(_words_of(item) for item in error.errors())


def yaml_from_model(model: BaseModel) -> str:
    """Write a document that reads back into an equal model: one line a fact, in the order of the fields."""
    document = model.model_dump(mode="json", exclude_none=True)
    return yaml.dump(document, Dumper=_LineDumper, sort_keys=False, allow_unicode=True, width=math.inf)


def _document(text: str, where: str, refusal: Refusal) -> object:
    try:
        return yaml.load(text, Loader=_OnceLoader)
    except yaml.MarkedYAMLError as error:
        raise refusal.error(f"{where}: {_place_and_problem(error)}; correct the YAML there") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # PyYAML lets a date such as 2020-13-45 fall through
        raise refusal.error(f"{where}: no YAML ({' '.join(str(error).split())}); write it as plain text") from error


def _place_and_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + (error.problem or error.context or "no YAML")


def _words_of(item: ErrorDetails) -> str:
    """One complaint of pydantic as field, got, expected."""
    place = ".".join(str(part) for part in item["loc"])
    got = repr(item["input"])[:60]
    match item["type"]:
        case "missing":
            words = "is missing"
        case "extra_forbidden":
            words = "is no field here"
        case "value_error":
            words = item["msg"].removeprefix("Value error, ")
        case "literal_error":
            words = f"got {got}, expected {item['ctx']['expected']}"
        case _:
            words = f"got {got}, {item['msg'].replace('Input', 'it').replace('String', 'it')}"
    return f"{place}: {words}" if place else words


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key written twice: plain YAML loaders keep the last one and say nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is written twice", key.start_mark
                )
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else key)
        return super().construct_mapping(node, deep=deep)


class _LineDumper(yaml.SafeDumper):
    """Writes a fact with its source, and every list of words, on one line."""


def _one_line_fact(dumper: yaml.SafeDumper, mapping: dict[str, object]) -> yaml.MappingNode:
    fact = "source" in mapping and not any(isinstance(value, dict | list) for value in mapping.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", mapping, flow_style=fact)


def _one_line_words(dumper: yaml.SafeDumper, items: list[object]) -> yaml.SequenceNode:
    words = all(isinstance(item, str) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=words)


_LineDumper.add_representer(dict, _one_line_fact)
_LineDumper.add_representer(list, _one_line_words)
