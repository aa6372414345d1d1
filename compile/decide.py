"""The law: an INT8 engine ships only if it is measured to be as good as float, within a limit, and faster.

A pure function over measured rows. Everything it weighs is in its arguments, so every boundary can be tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from typing import Literal

from pydantic import JsonValue

from compile.timing import Latency

NAIVE = "int8-minmax"

Wish = Literal["auto", "fp32", "fp16", "int8"]
RowPrecision = Literal["fp32", "fp16", "int8", "mixed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate with everything measured of it.

    Attributes:
        name: of the candidate.
        precision: `mixed` where some weighted layers stayed float.
        recipe: how it was made, in words.
        loss: of accuracy against float, as a share; below 0 where it is better. 0 for float itself.
        agreement: share of what it and float report that both report.
        scores: metric → value.
        latency: None where its accuracy ruled it out before it was worth timing.
        size_bytes: of the engine file.
        float_layers: weighted layers that stayed float.
        weighted_layers: all weighted layers.
    """

    name: str
    precision: RowPrecision
    recipe: str
    loss: float
    agreement: float
    scores: dict[str, float]
    latency: Latency | None
    size_bytes: int
    float_layers: int
    weighted_layers: int

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "name": self.name,
            "precision": self.precision,
            "recipe": self.recipe,
            "loss": self.loss,
            "agreement": self.agreement,
            "scores": dict(self.scores),
            "latency": None if self.latency is None else self.latency.document(),
            "size_bytes": self.size_bytes,
            "float_layers": self.float_layers,
            "weighted_layers": self.weighted_layers,
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """What a candidate must keep.

    Attributes:
        metric: what `Row.loss` is a loss of, in words.
        max_loss: greatest loss allowed, as a share; a loss equal to it passes.
        min_agreement: least agreement allowed; one equal to it passes.
        noise: share by which float differs from itself on this machine; a gain within it is none.
        budget_ms: longest median run allowed; None allows any.
    """

    metric: str
    max_loss: float
    min_agreement: float
    noise: float
    budget_ms: float | None = None

    def admit(self, *, loss: float, agreement: float) -> bool:
        """Whether an engine is as good as float, within the limits."""
        return loss <= self.max_loss and agreement >= self.min_agreement


@dataclass(frozen=True, slots=True)
class Decision:
    """What ships and why, in one sentence with figures.

    Attributes:
        chosen: the winning row; None where INT8 was demanded and none is good enough.
        why: for people.
        naive: what plain MinMax INT8 would have done; empty where it was not measured.
        rows: everything that was weighed.
        limits: what it was weighed by.
    """

    chosen: Row | None
    why: str
    naive: str
    rows: tuple[Row, ...]
    limits: Limits

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "chosen": None if self.chosen is None else self.chosen.name,
            "why": self.why,
            "naive": self.naive,
            "metric": self.limits.metric,
            "max_loss": self.limits.max_loss,
            "min_agreement": self.limits.min_agreement,
            "noise": self.limits.noise,
            "budget_ms": self.limits.budget_ms,
            "candidates": [row.document() for row in self.rows],
        }


def decide(rows: Sequence[Row], limits: Limits, *, wish: Wish) -> Decision:
    """Choose what ships.

    Args:
        rows: float first, then every other candidate; the price of the one called `NAIVE` is told.
        limits: what a candidate must keep.
        wish: `auto` takes the fastest candidate within the limit that beats float, else float; `int8` takes the fastest
            within the limit even if it does not, and `fp16` half precision in the same way; `fp32` takes float. With a
            latency budget, all but `fp32` take the most accurate engine that keeps it, and nothing ships where none
            does.

    Raises:
        ValueError: the first row is not float.
    """
    if not rows or rows[0].precision != "fp32":
        raise ValueError("rows: expected the float engine first")
    reference, candidates = rows[0], rows[1:]
    accurate = sorted(
        (row for row in candidates if limits.admit(loss=row.loss, agreement=row.agreement)), key=_by_speed
    )
    winners = [row for row in accurate if _beats_float(row, limits.noise)]
    asked_for = [row for row in accurate if (row.precision == "fp16") == (wish == "fp16")]
    if limits.budget_ms is not None:
        able = {"auto": [reference, *accurate], "int8": asked_for, "fp16": asked_for}.get(wish, [reference])
        return _within_budget(able, rows, limits, budget_ms=limits.budget_ms)
    if wish in ("int8", "fp16"):
        chosen = asked_for[0] if asked_for else None
    else:
        chosen = winners[0] if winners and wish == "auto" else reference
    why = _why(chosen, rows, accurate if wish == "auto" else asked_for, limits, wish)
    return Decision(chosen, why, _naive(candidates, limits), tuple(rows), limits)


def _within_budget(able: Sequence[Row], rows: Sequence[Row], limits: Limits, *, budget_ms: float) -> Decision:
    """The most accurate of the engines that are accurate enough and keep the budget."""
    timed = [(row, row.latency.p50_ms) for row in able if row.latency is not None]
    fits = sorted((row for row, p50_ms in timed if p50_ms <= budget_ms), key=lambda row: (row.loss, -row.agreement))
    if fits:
        chosen, why = fits[0], _why_fits(fits[0], limits, budget_ms)
    elif timed:
        chosen, (row, p50_ms) = None, min(timed, key=lambda pair: pair[1])
        why = (
            f"nothing ships: no engine within the limits keeps the budget of {budget_ms:g} ms; the fastest of them, "
            f"{row.name}, takes {p50_ms:.2f} ms"
        )
    else:
        chosen, why = None, "nothing ships: no engine is within the limits of accuracy, whatever its time"
    return Decision(chosen, why, _naive(rows[1:], limits), tuple(rows), limits)


def _why_fits(row: Row, limits: Limits, budget_ms: float) -> str:
    if row.precision == "fp32" and row.latency is not None:
        return f"float ships: it takes {row.latency.p50_ms:.2f} ms and keeps the budget of {budget_ms:g} ms as it is"
    return (
        f"{row.name} ships, the most accurate within the budget of {budget_ms:g} ms: it {_speed_words(row, limits)} "
        f"and {_loss_words(row, limits)}"
    )


def _beats_float(row: Row, noise: float) -> bool:
    """Whether a row is faster than float by more than noise, in the median and at the far end of its interval."""
    return row.latency is not None and row.latency.ratio.middle < 1 - noise and row.latency.ratio.high < 1


def _by_speed(row: Row) -> tuple[float, float]:
    return (row.latency.ratio.middle if row.latency is not None else float("inf"), row.loss)


def _why(chosen: Row | None, rows: Sequence[Row], accurate: Sequence[Row], limits: Limits, wish: Wish) -> str:
    if wish == "fp32":
        return "float ships: --precision fp32 was asked for"
    verdict = "float ships" if wish == "auto" else "nothing ships"
    kind = "FP16" if wish == "fp16" else "INT8"
    others = [row for row in rows[1:] if (row.precision == "fp16") == (wish == "fp16")]
    if not accurate and not others:
        return f"{verdict}: there is no {kind} candidate, no layer of this network can be quantized for this engine"
    if not accurate:
        best = max(others, key=lambda row: row.agreement)
        return (
            f"{verdict}: no {kind} candidate keeps the accuracy; the best of {len(others)}, {best.name}, "
            f"{_loss_words(best, limits)}"
        )
    if chosen is not None and chosen.precision != "fp32":
        return _why_faster(chosen, limits, kind)
    fastest = accurate[0]
    return (
        f"float ships: {fastest.name} {_loss_words(fastest, limits)} but is not faster beyond noise, "
        f"it {_speed_words(fastest, limits)}"
    )


def _why_faster(row: Row, limits: Limits, kind: str) -> str:
    slower = "" if _beats_float(row, limits.noise) else f" although it does not beat float, because {kind} was demanded"
    return f"{row.name} ships{slower}: it {_speed_words(row, limits)} and {_loss_words(row, limits)}"


def _naive(candidates: Sequence[Row], limits: Limits) -> str:
    row = next((row for row in candidates if row.name == NAIVE), None)
    if row is None:
        return ""
    speed = f" and takes {row.latency.ratio.middle:.2f} times as long as float" if row.latency is not None else ""
    return f"plain MinMax INT8 {_loss_words(row, limits)}{speed}"


def _loss_words(row: Row, limits: Limits) -> str:
    verb, size = ("loses", row.loss) if row.loss > 0 else ("keeps", 1 - row.loss)
    words = f"{verb} {size:.1%} of {limits.metric} (limit {limits.max_loss:.1%} lost)"
    if isclose(row.agreement, 1 - row.loss):
        return words
    return f"{words}, agreeing with float by {row.agreement:.1%} (at least {limits.min_agreement:.1%})"


def _speed_words(row: Row, limits: Limits) -> str:
    if row.latency is None:
        return "was not timed"
    return (
        f"takes {row.latency.p50_ms:.2f} ms, {row.latency.ratio.middle:.2f} times as long as float "
        f"(95 % interval {row.latency.ratio.low:.2f} to {row.latency.ratio.high:.2f}, noise ±{limits.noise:.1%})"
    )
