"""The page beside an engine: what was tried, what ships, why each layer is what it is, what calibration saw."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from pydantic import JsonValue

from compile.explain.plots import bars_of, pareto_of
from compile.explain.report import CompileReport

PAGE = "compile.html"
ONLY_IN_JSON = frozenset({"kept", "ghosts"})
"""Scores that the page leaves to `compile.json`."""

MOST_OPERATORS = 8
"""Operators whose share of the time is shown; the others go together."""


def render(report: CompileReport, name: str) -> bytes:
    """The page as one HTML file that needs no network.

    Args:
        report: of the compilation.
        name: of the package.
    """
    here = files("compile.explain")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = percent
    template = environment.from_string((here / "page.html").read_text())
    page = template.render(
        name=name,
        report=report,
        css=(here / "page.css").read_text(),
        verdict=verdict_of(report),
        facts=facts_of(report),
        pareto=pareto_of(report),
        metrics=metrics_of(report),
        operators=_operators(report),
        spreads=_spreads(report),
        machine=_machine(report),
    )
    return page.encode()


def verdict_of(report: CompileReport) -> str:
    """What ships, in a word or two."""
    words = {
        "fp32": "Float ships",
        "fp16": "FP16 ships",
        "int8": "INT8 ships",
        "mixed": "INT8 ships, some layers in float",
    }
    return "Nothing ships" if report.chosen is None else words[report.chosen.precision]


def facts_of(report: CompileReport) -> list[tuple[str, str, str]]:
    """The figures that matter most: (figure, what it is, beside what)."""
    chosen = report.chosen or report.reference
    facts: list[tuple[str, str, str]] = []
    if chosen.latency is not None:
        ratio, median = chosen.latency.times_float, f"{chosen.latency.p50_ms:.2f} ms"
        if chosen is report.reference:
            facts.append((median, "median inference", "float"))
        else:
            beside = f"95 % from {ratio.low:.2f} to {ratio.high:.2f}, round by round; median inference {median}"
            facts.append((f"{ratio.median:.2f} ×", "the time of float", beside))
    limit = f"limit {percent(report.decision.max_loss)}"
    facts.append((percent(max(chosen.loss, 0.0)), f"of {report.decision.metric} lost against float", limit))
    facts.append(
        (percent(chosen.agreement), "agreement with float", f"at least {percent(report.decision.min_agreement)}")
    )
    if report.int8_share is not None:
        integer = sum(layer.precision == "int8" for layer in report.layers)
        facts.append(
            (percent(report.int8_share), "of multiply-adds in INT8", f"{integer} of {len(report.layers)} layers")
        )
    return facts


def metrics_of(report: CompileReport) -> list[str]:
    """Scores worth a column, of the float engine: those of single classes are left out."""
    return [name for name in report.reference.scores if name not in ONLY_IN_JSON and " " not in name]


def percent(share: float) -> str:
    """0.1234 as `12.3 %`; what rounds to nothing has no sign."""
    return f"{round(100 * share, 1) + 0.0:.1f} %"


def _operators(report: CompileReport) -> list[tuple[str, float]]:
    ordered = sorted(report.time_by_operator.items(), key=lambda item: -item[1])
    rest = sum(share for _, share in ordered[MOST_OPERATORS:])
    return [*ordered[:MOST_OPERATORS], *([("all others", rest)] if rest else [])]


def _spreads(report: CompileReport) -> list[object]:
    if report.coverage is None:
        return []
    titles = {"Brightness": report.coverage.brightness, "Contrast": report.coverage.contrast}
    return [bars_of(f"{title}, grey levels", spread) for title, spread in titles.items()]


def _machine(report: CompileReport) -> str:
    cpu: JsonValue = report.machine.get("cpu")
    model = cpu.get("model") if isinstance(cpu, dict) else None
    return f"{model or 'an unnamed CPU'}, {report.threads} threads"
