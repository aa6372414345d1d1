"""TensorRT on this machine's GPU as what a search is for: it builds what it opens, and each plan only once.

A plan takes minutes and two builds of one model differ, so the plan that was graded and timed is the one that ships.
Trials of the search, of which there are many, run on the same grids in ONNX Runtime, without a build.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from rich.markup import escape

from compile.backends.onnxrt import NodeTime, opened
from compile.backends.tensorrt import answers_in_fresh_process, build, for_a_rebuild, layer_times, options_for
from compile.graph import operators_of
from compile.half import allows_half
from compile.job import Job
from compile.store import Key, Store
from hw_profiles.machine import Gpu
from perception.engines.engine import Engine, Tensors
from perception.engines.tensorrt_build import ENGINE_FILE, BuildOptions
from perception.engines.trt_versions import installed
from perception.errors import EngineError, ProfileError
from perception.files import json_bytes, sha256_of_bytes
from perception.terminal import Terminal

FIRST_BUILD_S = 90.0
"""What a build is taken to last before there was one."""


@dataclass(frozen=True, slots=True)
class TensorRtTarget:
    """See `Target`.

    Attributes:
        gpu: the machine's.
        threads: CPU threads of trials.
        options: of every build; FP16 is allowed where a model says so.
        store: keeps plans between searches.
        terminal: where builds show their progress.
        timings: folder of timing caches; None keeps none.
        built: seconds of every build so far; plans that were kept are none.
    """

    gpu: Gpu
    threads: int
    options: BuildOptions
    store: Store
    terminal: Terminal
    engine_file: str = ENGINE_FILE
    is_timed: bool = True
    timings: Path | None = None
    built: list[float] = field(default_factory=list)
    _plans: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of_job(cls, job: Job) -> TensorRtTarget:
        """For the machine of a compilation.

        Raises:
            ProfileError: no GPU.
            EngineError: no TensorRT, or a release this project does not know.
        """
        installed()
        if job.machine.gpu is None:
            raise ProfileError(f"profile {job.profile.name}: this machine has no NVIDIA GPU to build for; run it there")
        options = options_for(job.profile, half=False)
        if job.options.builder_level is not None:
            options = replace(options, level=job.options.builder_level)
        folder = job.store.folder
        timings = None if folder is None else folder / "tensorrt"
        return cls(job.machine.gpu, job.threads, options, job.store, job.terminal, timings=timings)

    @property
    def build_seconds(self) -> tuple[float, ...]:
        """See `Target`."""
        return tuple(self.built)

    @property
    def requires(self) -> dict[str, str]:
        """What must match where a plan is opened; a driver may be newer."""
        found = {"tensorrt": installed().version, "gpu": self.gpu.name}
        found |= {"compute_capability": self.gpu.compute_capability} if self.gpu.compute_capability else {}
        return found | ({"driver": f">={self.gpu.driver}"} if self.gpu.driver else {})

    def opened(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`; builds the plan where it was not built yet."""
        return _opened_plan(self.serialised(content))

    def simulated(self, content: bytes) -> AbstractContextManager[Engine]:
        """See `Target`."""
        return opened(content, threads=self.threads, integers=False)

    def timed_as(self, content: bytes) -> str:
        """See `Target`: two engines of the same operators take the same time, whatever their numbers are."""
        model = onnx.load_model_from_string(content)
        return sha256_of_bytes(operators_of(model.graph) + bytes([allows_half(model)]))

    def preparing_s(self, content: bytes) -> float:
        """See `Target`: as long as the longest build so far."""
        if sha256_of_bytes(content) in self._plans or self.store.holds(self._key(content)):
            return 0.0
        return max(self.built, default=FIRST_BUILD_S)

    def node_times(self, content: bytes, feeds: Tensors) -> list[NodeTime]:
        """See `Target`: a layer's time counts for the first node it was fused from."""
        graph = onnx.load_model_from_string(content).graph
        op_types = {node.name: node.op_type for node in graph.node}
        stacked = {name: tensor[None] for name, tensor in feeds.items()}
        return [
            NodeTime(time.nodes[0], op_types[time.nodes[0]], time.median_us)
            if time.nodes
            else NodeTime(time.name, "(TensorRT)", time.median_us)
            for time in layer_times(self.serialised(content), stacked, graph)
        ]

    def serialised(self, content: bytes) -> bytes:
        """See `Target`: the plan, built at the first asking and kept."""
        digest = sha256_of_bytes(content)
        if digest not in self._plans:
            self._plans[digest] = self.store.content(self._key(content), lambda: self._built(content))
        return self._plans[digest]

    def beside(self, content: bytes) -> Mapping[str, bytes]:
        """See `Target`: the network the plan was built from, for a rebuild elsewhere."""
        return for_a_rebuild(onnx.load_model_from_string(content), self._options(content))

    def proof(self, content: bytes, feeds: Tensors) -> dict[str, float]:
        """See `Target`: the plan's answers in a process of its own, against the same grids in ONNX Runtime.

        Raises:
            EngineError: the plan does not open there, or answers with what is no number.
        """
        answers = answers_in_fresh_process(self.serialised(content), {name: t[None] for name, t in feeds.items()})
        with self.simulated(content) as engine:
            expected = engine.infer(feeds)
            return {name: _signal_to_noise_db(name, expected[name], answer[0]) for name, answer in answers.items()}

    def _options(self, content: bytes) -> BuildOptions:
        return replace(self.options, half=allows_half(onnx.load_model_from_string(content)))

    def _key(self, content: bytes) -> Key:
        """What a plan depends on."""
        options = json_bytes(asdict(self._options(content))).decode()
        return ("plan", sha256_of_bytes(content), options, self.gpu.name, self.gpu.driver or "", installed().version)

    def _built(self, content: bytes) -> bytes:
        options, number, started_s = self._options(content), len(self.built) + 1, time.monotonic()
        with self.terminal.progress(f"building TensorRT plan {number}", None) as step:

            def told(words: str) -> None:
                step()
                if options.dla_core is not None:
                    self.terminal.say(escape(words))

            model = onnx.load_model_from_string(content)
            plan = build(model, options, device=self.gpu.name, advance=told, cache_folder=self.timings)
        self.built.append(time.monotonic() - started_s)
        self.terminal.say(f"plan {number}: {len(plan) / 1e6:.1f} MB in {self.built[-1]:.0f} s")
        return plan


@contextmanager
def _opened_plan(plan: bytes) -> Iterator[Engine]:
    from perception.engines.tensorrt import TensorRtEngine  # needs the GPU's libraries; everything else here does not

    engine = TensorRtEngine(plan)
    try:
        yield cast("Engine", engine)
    finally:
        engine.close()


def _signal_to_noise_db(name: str, expected: NDArray[np.generic], got: NDArray[np.generic]) -> float:
    wanted, seen = expected.astype(np.float64), got.astype(np.float64)
    if not np.isfinite(seen).all():
        raise EngineError(
            f"output {name}: the plan answers with NaN or infinity in a fresh process; keep more layers in float "
            "(--keep-float), or --precision fp32"
        )
    signal, noise = float((wanted**2).mean()), float(((wanted - seen) ** 2).mean())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
