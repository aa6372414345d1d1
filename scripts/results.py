"""Print docs/results/*.json: one table a file, each row beside its limit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


def main() -> int:
    """Print every results file; returns 2 where there is none."""
    console = Console(highlight=False)
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        console.print("docs/results has no results yet; run: make bench")
        return 2
    for path in files:
        show(json.loads(path.read_text()), path.stem, console)
    return 0


def show(results: dict[str, object], name: str, console: Console) -> None:
    """One file as a table, its conditions above it."""
    conditions: dict[str, object] = results["conditions"]  # type: ignore[assignment]
    console.print(
        f"\n[bold]{name}[/]  " + ", ".join(f"{key} {value}" for key, value in conditions.items()), style="dim"
    )
    table = Table(show_edge=False, header_style="bold")
    for header in ("what", "value", "limit", "unit", "samples", ""):
        table.add_column(header, justify="right" if header in ("value", "limit", "samples") else "left")
    for row in results["rows"]:  # type: ignore[attr-defined]
        table.add_row(
            row["id"], f"{row['value']:.4g}", limit_of(row), row["unit"], str(row["samples"]), verdict_of(row)
        )
    console.print(table)


def limit_of(row: dict[str, object]) -> str:
    """The limit with its direction, or a dash where the row is for information."""
    if row["limit"] is None:
        return "–"
    return f"{'≤' if row['better'] == 'lower' else '≥'} {row['limit']:.4g}"


def verdict_of(row: dict[str, object]) -> str:
    """Whether the row keeps its limit."""
    if row["limit"] is None:
        return ""
    value, limit = float(row["value"]), float(row["limit"])  # type: ignore[arg-type]
    kept = value <= limit if row["better"] == "lower" else value >= limit
    return "[green]kept[/]" if kept else "[red]falls short[/]"


if __name__ == "__main__":
    sys.exit(main())
