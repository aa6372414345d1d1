"""Makes candidates of one network by recipes: what calibration frames show is collected once and serves them all."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, cast, get_args

import numpy as np
import onnx
from pydantic import JsonValue

from compile.backends.onnxrt import build
from compile.candidate import Candidate
from compile.equalization import equalize, equalized_name
from compile.fitting import Fit, Fitting, equalized_readers, fit_tensors, integer_readers
from compile.graph import GraphView
from compile.half import allowing_half
from compile.observation import Observations, Watch, observe, sampled_layers
from compile.placement import Placement, place
from compile.quantize import NOTHING_ROUNDED, IntegerWeights, quantize, with_bias_added
from compile.ranges import RANGE_RULES, Range
from compile.recipes import FITTED, RECIPES, Recipe
from compile.reconstruction import Reconstruction, Rounding, reconstruct
from compile.recordings import no_progress
from compile.rules import PlacementRules, Scope
from compile.sensitivity import LayerLoss, layer_losses
from compile.spreading import spread
from compile.store import Store
from perception.engines.engine import Tensors
from perception.errors import ModelError

AUDIT_FRAMES = 4
PRICED_FRAMES = 4
RECONSTRUCTION_FRAMES = 48
RECONSTRUCTION_BYTES = 1 << 30
HELD_TENSORS = 6
"""How many of the largest tensor a network holds at its widest cut, twice over, in a rough guess."""

NOTHING_KEPT: Mapping[str, str] = MappingProxyType({})
PER_CHANNEL_OPSET = 13


@dataclass(slots=True)
class Quantizer:
    """Makes candidates of one network: the histograms are collected once and serve every recipe.

    Attributes:
        graph: the float network.
        rules: of the engine kind.
        feeds: starts the calibration frames anew.
        some_feeds: at most so many of them, evenly over the recordings, each the caller's to keep.
        keep_float: layers demanded to stay float → why.
        weight_bits: see `compile.quantize.weight_grid`.
        threads: CPU threads.
        identity: what the calibration frames are, and how they are fed; with a store only.
        store: keeps what was made.
    """

    graph: GraphView
    rules: PlacementRules
    feeds: Callable[[], Iterable[Tensors]]
    some_feeds: Callable[[int], list[Tensors]]
    keep_float: Mapping[str, str]
    weight_bits: int
    threads: int
    identity: Sequence[str] = ()
    store: Store = field(default_factory=lambda: Store(None))
    _seen: Observations = field(default_factory=Observations)
    _spread: GraphView = field(init=False)
    _spread_seen: Observations = field(default_factory=Observations)
    _is_spread: bool = False
    _fits: dict[tuple[Scope, bool], dict[str, Fit]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is spread before it was observed."""
        self._spread = self.graph

    def observe(self, recipes: Iterable[Recipe], advance: Callable[[], None] = no_progress) -> None:
        """Run the float network over the calibration frames and note what recipes need, unless that is known already.

        What is noted does not depend on which recipes ask: one alone is later made to the same bytes.

        Args:
            recipes: those that candidates will be made of.
            advance: called after each frame.

        Raises:
            ModelError: a tensor is not finite on a real frame.
        """
        fitting = any(recipe.range_rule == FITTED for recipe in recipes) and not self._is_spread
        if self._seen.histograms and not fitting:
            return
        placements = [self._whole(scope) for scope in get_args(Scope)]
        tensors = tuple(dict.fromkeys(name for placement in placements for name in placement.ranged_tensors))
        layers = dict.fromkeys(name for placement in placements for name in placement.integer_nodes)
        feeds, frames = self._watched_feeds(advance), sum(1 for _ in self.feeds())
        if not self._seen.histograms:
            watch = Watch(self.graph, tensors, sampled_layers(self.graph, layers), frames)
            self._seen = self._spread_seen = observe(watch, feeds, threads=self.threads)
        if fitting:
            self._spread = spread(self.graph, tensors, self._seen, signed=self.rules.signed)
            if self._spread is not self.graph:
                watch = Watch(self._spread, tensors, sampled_layers(self._spread, layers), frames)
                self._spread_seen = observe(watch, feeds, threads=self.threads)
            self._is_spread = True

    def placement(self, recipe: Recipe, kept: Mapping[str, str] = NOTHING_KEPT) -> Placement:
        """Where a recipe puts its pairs."""
        return place(self.graph, self.rules, scope=recipe.scope, keep_float={**kept, **self.keep_float})

    def float_candidate(self) -> Candidate:
        """The network as it was trained."""
        weighted = sum(node.op_type in self.rules.weighted_ops for node in self.graph.nodes)
        return Candidate(
            "fp32", self.graph.model, build(self.graph.model), None, NOTHING_KEPT, NOTHING_KEPT, frozenset(), weighted
        )

    def half_candidate(self) -> Candidate:
        """The network as it was trained, in half precision where its engine finds that faster."""
        model = allowing_half(self.graph.model)
        return replace(self.float_candidate(), name="fp16", model=model, content=build(model), half=True)

    def candidate(self, recipe: Recipe, kept: Mapping[str, str] = NOTHING_KEPT) -> Candidate:
        """The network quantized by a recipe, but for the layers to be kept float."""
        content = self.store.content(self._candidate_key(recipe, kept), lambda: build(self.quantized(recipe, kept)))
        placement = self.placement(recipe, kept)
        weighted = [node.name for node in self.graph.nodes if node.op_type in self.rules.weighted_ops]
        kept_float = {**kept, **self.keep_float}
        return Candidate(
            name=f"{recipe.name}, {len(kept)} float" if kept else recipe.name,
            model=onnx.load_model_from_string(content),
            content=content,
            recipe=recipe,
            kept_float=kept_float,
            unfit={name: why for name, why in placement.float_weighted.items() if name not in kept_float},
            integer_nodes=frozenset(weighted) & frozenset(placement.integer_nodes),
            weighted_layers=len(weighted),
            half=self.rules.half,
        )

    def quantized(self, recipe: Recipe, kept: Mapping[str, str] = NOTHING_KEPT) -> onnx.ModelProto:
        """The same, made anew, without a look into the store."""
        prepared = self._prepared(recipe, kept)
        model = quantize(
            prepared.graph,
            prepared.placement,
            prepared.ranges,
            weights=self._reconstructed(recipe, prepared),
            weight_bits=self.weight_bits,
        )
        return allowing_half(model) if self.rules.half else model

    def alone(self, recipe: Recipe, loss: LayerLoss) -> onnx.ModelProto:
        """The float network with one layer by a recipe; its mean error is corrected where the recipe corrects it."""
        others = {node.name: "another layer's turn" for node in self.graph.nodes if node.name != loss.node}
        prepared = self._prepared(recipe, others)
        weights = {}
        if recipe.rounding is not None:
            node = next(node for node in prepared.graph.nodes if node.name == loss.node)
            weights[loss.node] = with_bias_added(prepared.graph, node, loss.mean_error, bits=self.weight_bits)
        return quantize(
            prepared.graph, prepared.placement, prepared.ranges, weights=weights, weight_bits=self.weight_bits
        )

    def losses(self, recipe: Recipe) -> list[LayerLoss]:
        """What each layer loses by a recipe, greatest first."""
        found = self.store.document(("losses", *self._key(recipe)), lambda: self._losses(recipe))
        return [LayerLoss(node, share, tuple(error)) for node, share, error in cast("list[Any]", found)]

    def is_kept(self, recipe: Recipe) -> bool:
        """Whether the store holds the whole network by this recipe."""
        return self.store.holds(self._candidate_key(recipe, NOTHING_KEPT))

    def _losses(self, recipe: Recipe) -> list[JsonValue]:
        prepared = self._prepared(recipe, NOTHING_KEPT)
        feeds = self.some_feeds(AUDIT_FRAMES)
        losses = layer_losses(prepared.graph, prepared.placement, prepared.ranges, feeds, threads=self.threads)
        return [[loss.node, loss.noise_share, list(loss.mean_error)] for loss in losses]

    def _candidate_key(self, recipe: Recipe, kept: Mapping[str, str]) -> tuple[JsonValue, ...]:
        return ("candidate", *self._key(recipe), *sorted({*kept, *self.keep_float}))

    def _key(self, recipe: Recipe) -> tuple[JsonValue, ...]:
        """What a recipe's candidates are made of."""
        made_by = (recipe.range_rule, recipe.scope, recipe.rounding, recipe.equalizes)
        return (*self.identity, self.rules.engine_kind, self.weight_bits, self.threads, *made_by)

    def _watched_feeds(self, advance: Callable[[], None]) -> Callable[[], Iterable[Tensors]]:
        def feeds() -> Iterable[Tensors]:
            for feed in self.feeds():
                yield feed
                advance()

        return feeds

    def _prepared(self, recipe: Recipe, kept: Mapping[str, str]) -> _Prepared:
        """The graph to quantize, with its placement and ranges: spread and equalized where the recipe fits."""
        self.observe([recipe])
        placement = self.placement(recipe, kept)
        if recipe.range_rule != FITTED:
            rule = RANGE_RULES[recipe.range_rule]
            ranges = {name: rule(self._seen.histograms[name]) for name in placement.ranged_tensors}
            return _Prepared(self.graph, placement, ranges)
        fits = self._fitted(recipe)
        readers = equalized_readers(fits, integer_readers(self._spread, placement))
        equalizers = {name: fit.equalizer for name, fit in fits.items() if name in readers and fit.equalizer}
        graph = GraphView.of(equalize(self._spread, equalizers, readers)) if equalizers else self._spread
        placed = place(graph, self.rules, scope=recipe.scope, keep_float={**kept, **self.keep_float})
        ranges = {name: fit.range for name, fit in fits.items()}
        ranges |= {equalized_name(name): fit.equalized_range for name, fit in fits.items() if fit.equalized_range}
        return _Prepared(graph, placed, ranges)

    def _whole(self, scope: Scope) -> Placement:
        """Where pairs stand with nothing kept float: what is fitted does not depend on what is kept."""
        return place(self.graph, self.rules, scope=scope, keep_float=NOTHING_KEPT)

    def _fitted(self, recipe: Recipe) -> dict[str, Fit]:
        key = recipe.scope, recipe.equalizes
        if key not in self._fits:
            self._fits[key] = fit_tensors(
                Fitting(
                    self._spread,
                    self._whole(recipe.scope),
                    self._spread_seen,
                    self.some_feeds(PRICED_FRAMES),
                    self.weight_bits,
                    self.threads,
                    equalizing=recipe.equalizes and self.rules.equalizes,
                )
            )
        return self._fits[key]

    def _reconstructed(self, recipe: Recipe, prepared: _Prepared) -> Mapping[str, IntegerWeights]:
        if recipe.rounding is None:
            return NOTHING_ROUNDED
        largest = max((self.graph.bytes_of(name) for name in self.graph.shapes), default=1)
        most = int(np.clip(RECONSTRUCTION_BYTES // (2 * HELD_TENSORS * largest), 4, RECONSTRUCTION_FRAMES))
        work = Reconstruction(
            prepared.graph, prepared.placement, prepared.ranges, recipe.rounding, self.weight_bits, self.threads
        )
        return reconstruct(work, self.some_feeds(most))


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A float graph ready to be quantized."""

    graph: GraphView
    placement: Placement
    ranges: Mapping[str, Range]


def usable_recipes(quantizer: Quantizer, engine_kind: str) -> tuple[Recipe, ...]:
    """The recipes of an engine kind that quantize anything in this network, each placement once."""
    opset = next(entry.version for entry in quantizer.graph.model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < PER_CHANNEL_OPSET:
        return ()
    found: dict[tuple[str, Rounding | None, bool, tuple[str, ...]], Recipe] = {}
    for recipe in RECIPES[engine_kind]:
        nodes = quantizer.placement(recipe).integer_nodes
        if nodes:
            found.setdefault((recipe.range_rule, recipe.rounding, recipe.equalizes, nodes), recipe)
    return tuple(found.values())


def kept_by_pattern(graph: GraphView, patterns: Iterable[str]) -> dict[str, str]:
    """Layers that `--keep-float` names, by shell patterns over node names.

    Raises:
        ModelError: a pattern names no node.
    """
    names = [node.name for node in graph.nodes]
    kept: dict[str, str] = {}
    for pattern in patterns:
        matched = fnmatch.filter(names, pattern)
        if not matched:
            raise ModelError(
                f"--keep-float {pattern!r}: no node of that name, the first are {', '.join(names[:5])}; "
                "see them all with: tollgate inspect"
            )
        kept |= dict.fromkeys(matched, f"kept float by {pattern!r}")
    return kept
