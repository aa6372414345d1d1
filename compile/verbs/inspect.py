"""Look at an ONNX model: what goes in, what comes out, what it costs, what the importer would clean.

Given an engine package, tell what its compilation found: what ships and why, what naive INT8 would have done, which
layers matter most, what calibration saw.

An ONNX file does not say how its model wants its pixels (colour order, range, resizing) nor how its outputs read. That
is written in a ModelSpec, a YAML file beside the model. This verb writes a draft of it and says, field by field, what
it was guessed from and how sure that is:

  certain  the file itself says it
  likely   networks of this family are known to do so
  unsure   nothing tells; look it up where the model was trained, then correct the YAML

A model fed otherwise than it was trained still runs, and silently finds less. So check what is unsure.

  tollgate inspect model.onnx                              look, and write model.yaml beside it
  tollgate inspect model.onnx --output specs/model.yaml    write the draft elsewhere
  tollgate inspect model.onnx --shape images=1,3,640,640   fix an input that was exported with open sides
  tollgate inspect model.onnx --json                       the same for machines
  tollgate inspect packages/model                          what a compilation came to
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from compile.cost import Cost, NodeCost, cost_of
from compile.explain.screen import report_of, show
from compile.guess import Clue, Guess, guess_spec
from compile.importer import ImportedModel, import_model
from compile.onnx_graph import shapes_of
from perception.cli import EXIT_PASSED
from perception.files import write_atomically
from perception.package import open_package
from perception.terminal import Terminal

MOST_OPERATORS, MOST_LAYERS = 8, 5
WIDEST_TEXT, LONGEST_UNBROKEN = 110, 40
HARD_SPACE = "\N{NO-BREAK SPACE}"
COLOURS = {"certain": "green", "likely": "yellow", "unsure": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `perception.cli.VerbModule`."""
    parser.add_argument("model", type=Path, help="the ONNX file, opset 9 to 21, or the folder of an engine package")
    parser.add_argument(
        "--output", type=Path, metavar="SPEC.yaml", help="where the draft goes (default: beside the model, .yaml)"
    )
    parser.add_argument("--force", action="store_true", help="replace a spec that is there already")
    add_shape_argument(parser)


def add_shape_argument(parser: argparse.ArgumentParser) -> None:
    """Declare `--shape`, gathered as (name, sides) pairs under `shapes`."""
    parser.add_argument(
        "--shape",
        dest="shapes",
        action="append",
        default=[],
        type=shape_argument,
        metavar="INPUT=1,3,H,W",
        help="sides of an input that was exported with open ones; the batch alone becomes 1 by itself; repeatable",
    )


def shape_argument(text: str) -> tuple[str, tuple[int, ...]]:
    """`images=1,3,640,640` as name and sides.

    Raises:
        ArgumentTypeError: not of this form.
    """
    name, _, sides = text.rpartition("=")
    if not name or not all(side.strip().isdecimal() for side in sides.split(",")):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected INPUT=SIDE,SIDE,… such as images=1,3,640,640")
    return name, tuple(int(side) for side in sides.split(","))


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """See `perception.cli.VerbModule`."""
    path: Path = arguments.model
    if path.is_dir():
        return _inspect_package(path, terminal)
    with terminal.progress(f"reading {escape(path.name)} and proving that cleaning changes nothing", None):
        imported = import_model(path, shapes=dict(arguments.shapes))
        cost = cost_of(imported.model)
        guess = guess_spec(imported, path.stem)
    _show_model(terminal, path, imported)
    _show_cost(terminal, imported, cost)
    _show_cleaning(terminal, imported)
    _show_guess(terminal, guess)
    draft = arguments.output or path.with_suffix(".yaml")
    written = _write_draft(terminal, guess, draft, force=arguments.force)
    terminal.result(_document(path, imported, cost, guess) | {"draft": str(draft), "draft_written": written})
    return EXIT_PASSED


def _inspect_package(folder: Path, terminal: Terminal) -> int:
    package = open_package(folder)
    report = report_of(package)
    show(package, report, terminal)
    terminal.result({"manifest": package.manifest.model_dump(mode="json"), "report": report.model_dump(mode="json")})
    return EXIT_PASSED


def _write_draft(terminal: Terminal, guess: Guess, draft: Path, *, force: bool) -> bool:
    """Write the YAML unless one is there already; returns whether it was written.

    Raises:
        OutputError: the folder is missing or not writable.
    """
    shown = escape(str(draft))
    if guess.spec is None:
        terminal.say("No spec was drafted.")
        return False
    if draft.exists() and not force:
        terminal.say(f"[bold]{shown}[/] is there already and was left as it is; [bold]--force[/] replaces it")
        return False
    write_atomically(draft, guess.to_yaml().encode())
    unsure = ", ".join(clue.field.split(".")[-1] for clue in guess.unsure)
    terminal.say(f"Draft written: [bold]{shown}[/]")
    terminal.say(
        f"Check before use: [red]{escape(unsure)}[/]" if unsure else "Nothing in it is unsure; check it all the same"
    )
    return True


def _show_model(terminal: Terminal, path: Path, imported: ImportedModel) -> None:
    model = imported.model
    made_by = " ".join(filter(None, (model.producer_name, model.producer_version))) or "an unnamed exporter"
    facts = (
        _bytes(imported.source_bytes),
        f"opset {imported.source_opset}",
        f"made by {made_by}",
        f"sha256 {imported.source_sha256[:12]}…",
    )
    terminal.say(f"\n[bold]{escape(path.name)}[/]  [dim]{escape(' · '.join(facts))}[/]\n")
    rows = [
        (kind, escape(tensor.name), " × ".join(str(side) if side >= 0 else "?" for side in tensor.shape), tensor.dtype)
        for kind, tensors in (("input", imported.inputs), ("output", imported.outputs))
        for tensor in tensors
    ]
    terminal.table("Tensors", ("", "name", "shape", "type"), rows)


def _show_cost(terminal: Terminal, imported: ImportedModel, cost: Cost) -> None:
    terminal.say("")
    totals = cost.by_operator()
    rows = [
        (
            t.operator,
            f"{t.nodes:>5}",
            f"{_count(t.macs):>13}",
            f"{_count(t.parameters):>10}",
            f"{_bytes(t.activation_bytes):>11}",
        )
        for t in totals[:MOST_OPERATORS]
    ]
    title = (
        f"Cost: {_count(cost.macs)} multiply-adds, {_count(cost.parameters)} parameters, "
        f"{_bytes(cost.activation_bytes)} of activations"
    )
    terminal.table(title, ("operator", "nodes", "multiply-adds", "parameters", "activations"), rows)
    if rest := totals[MOST_OPERATORS:]:
        _say_wrapped(terminal, " and ", ", ".join(f"{t.nodes} {t.operator}" for t in rest), style="dim")
    if cost.uncounted:
        terminal.say(f"[yellow]{len(cost.uncounted)} nodes of sizes known only at run time are not counted[/]")
    _show_layers(terminal, imported, cost)


def _show_layers(terminal: Terminal, imported: ImportedModel, cost: Cost) -> None:
    if not cost.macs:
        return
    terminal.say("")
    rows = [
        (escape(node.node), f"{_count(node.macs):>13}", f"{100 * node.macs / cost.macs:5.1f} %", shape)
        for node, shape in _biggest(imported, cost)
    ]
    terminal.table("Biggest layers", ("node", "multiply-adds", "share", "output"), rows)


def _biggest(imported: ImportedModel, cost: Cost) -> list[tuple[NodeCost, str]]:
    """The layers with the most multiply-adds, with the shape of their output."""
    shapes = shapes_of(imported.model.graph)
    outputs = {node.name: node.output[0] for node in imported.model.graph.node}
    biggest = sorted(cost.nodes, key=lambda node: -node.macs)[:MOST_LAYERS]
    return [(n, " × ".join(map(str, shapes.get(outputs[n.node], ())))) for n in biggest if n.macs]


def _show_cleaning(terminal: Terminal, imported: ImportedModel) -> None:
    terminal.say("\n[bold]What the importer cleans[/]  [dim]outputs proved equal on a random input[/]")
    for change in imported.changes or ("nothing",):
        _say_wrapped(terminal, "  • ", change)
    for note in imported.notes:
        _say_wrapped(terminal, "  ! ", note, style="yellow")


def _show_guess(terminal: Terminal, guess: Guess) -> None:
    terminal.say(f"\n[bold]Looks like {escape(guess.family)}[/]")
    for clues in _by_reason(clue for clue in guess.clues if _is_worth_showing(clue)):
        first = clues[0]
        values = " · ".join(_unbroken(f"{clue.field.split('.', 1)[-1]} {_value(clue)}") for clue in clues)
        _say_wrapped(terminal, f"  {first.confidence:<8} ", values, mark=COLOURS[first.confidence])
        _say_wrapped(terminal, " " * 11, first.why, style="dim")
    terminal.say("")


def _is_worth_showing(clue: Clue) -> bool:
    """The screen leaves out what is empty or plain; JSON and YAML have every field."""
    return clue.field != "name" and (clue.value not in (None, (), {}) or clue.confidence == "unsure")


def _by_reason(clues: Iterable[Clue]) -> Iterator[list[Clue]]:
    """Clues that share reason and confidence together, the unsure last, otherwise in the order of the spec."""
    groups: dict[tuple[str, str], list[Clue]] = {}
    for clue in clues:
        groups.setdefault((clue.confidence, clue.why), []).append(clue)
    for confidence in COLOURS:
        yield from (group for (sure, _), group in groups.items() if sure == confidence)


def _value(clue: Clue) -> str:
    """A value as short as a line allows."""
    value = clue.value
    if isinstance(value, dict):
        return ", ".join(f"{key}={entry}" for key, entry in value.items()) or "none"
    if isinstance(value, tuple):
        shown = ", ".join(_number(entry) for entry in value[:6])
        return (f"{shown}, … ({len(value)})" if len(value) > 6 else shown) or "none"
    return "none" if value is None else _number(value)


def _unbroken(text: str) -> str:
    """Short text is kept on one line, by the hard spaces that `_say_wrapped` turns back."""
    return text.replace(" ", HARD_SPACE) if len(text) <= LONGEST_UNBROKEN else text


def _number(value: object) -> str:
    if isinstance(value, float):
        return "1/255" if abs(value * 255 - 1) < 1e-9 else f"{value:g}"
    return str(value)


def _say_wrapped(terminal: Terminal, head: str, text: str, *, style: str = "", mark: str = "") -> None:
    """Text behind a head, wrapped to the window, its further lines indented under the first."""
    width = max(40, min(WIDEST_TEXT, shutil.get_terminal_size((WIDEST_TEXT, 24)).columns) - len(head))
    opened, closed = (f"[{style}]", "[/]") if style else ("", "")
    shown_head = f"[{mark}]{escape(head)}[/]" if mark else escape(head)
    for line in textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False):
        terminal.say(f"{shown_head}{opened}{escape(line.replace(HARD_SPACE, ' '))}{closed}")
        shown_head = " " * len(head)


def _count(number: int) -> str:
    """12.3 M, as people say it."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{f'{number / size:#.3g}'.rstrip('.')} {unit}"
    return str(number) if number else "–"


def _bytes(number: int) -> str:
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


def _document(path: Path, imported: ImportedModel, cost: Cost, guess: Guess) -> dict[str, object]:
    """Everything that was shown, for machines."""
    return {
        "model": str(path),
        "sha256": imported.source_sha256,
        "bytes": imported.source_bytes,
        "producer": imported.model.producer_name,
        "source_opset": imported.source_opset,
        "opset": imported.opset,
        "inputs": [asdict(tensor) for tensor in imported.inputs],
        "outputs": [asdict(tensor) for tensor in imported.outputs],
        "cost": {
            "macs": cost.macs,
            "parameters": cost.parameters,
            "activation_bytes": cost.activation_bytes,
            "operators": [asdict(total) for total in cost.by_operator()],
            "biggest": [asdict(node) for node, _ in _biggest(imported, cost)],
            "uncounted": list(cost.uncounted),
        },
        "changes": list(imported.changes),
        "notes": list(imported.notes),
        "family": guess.family,
        "clues": [asdict(clue) for clue in guess.clues],
    }
