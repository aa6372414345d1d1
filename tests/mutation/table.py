"""The table of planted faults in docs/gate_mutations.md, a section for each module of tests."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gate_mutations.md"
WRITE = "TOLLGATE_WRITE_MUTATIONS"
HEADER = "| planted fault | aimed at | says | also failed |\n|---|---|---|---|\n"


@dataclass(frozen=True, slots=True)
class Caught:
    """What the gates said of one planted fault.

    Attributes:
        fault: in words.
        aimed: the claim that had to catch it.
        says: its figure and limit.
        others: gates whose claims failed too.
    """

    fault: str
    aimed: str
    says: str
    others: Sequence[str]

    def row(self) -> str:
        """As a line of the table."""
        return f"| {self.fault} | {self.aimed} | {self.says} | {', '.join(self.others) or '–'} |\n"


def check_page(section: str, rows: Mapping[str, Caught]) -> None:
    """The page's section names exactly these faults and aims; figures are of the machine that wrote it.

    With TOLLGATE_WRITE_MUTATIONS=1 the section is written instead.
    """
    text = PAGE.read_text()
    start = text.index(f"## {section}\n")
    end = text.find("\n## ", start + 1)
    old = text[start:] if end < 0 else text[start : end + 1]
    if os.environ.get(WRITE) == "1":
        table = HEADER + "".join(each.row() for each in rows.values())
        before = old[: old.index("| planted fault")] if "| planted fault" in old else old
        PAGE.write_text(text.replace(old, before + table + ("\n" if end >= 0 else "")))
        return
    named = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \| [^|]+ \|$", old, flags=re.MULTILINE)[1:]
    assert named == [(each.fault, each.aimed) for each in rows.values()], f"write it again with {WRITE}=1"
