"""The page on gates names every quantity as the gates have it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safety_gates.gates.table import GATES, open_gate
from safety_gates.policy import Policy

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gates.md").read_text()
OF_TASK = {"detection": "boxes", "segmentation": "masks", None: "any"}


@pytest.mark.parametrize("gate", GATES)
def test_every_quantity_stands_in_the_table_with_unit_direction_and_meaning(gate):
    for name, quantity in open_gate(gate).quantities.items():
        start = f"| {gate} | `{name}` | {quantity.unit} | {quantity.comparison} | {OF_TASK[quantity.task]} | "
        assert start + quantity.meaning in PAGE


def test_the_table_names_nothing_that_does_not_exist():
    named = set(re.findall(r"^\| (\w+) \| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert named == {(gate, name) for gate in GATES for name in open_gate(gate).quantities}


def test_the_example_policy_is_one():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(Policy.from_yaml(example, where="docs/gates.md").limits) == 2
