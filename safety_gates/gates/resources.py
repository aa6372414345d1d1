"""The resources gate: how much memory a package takes, whether it grows, what it draws and how hot it gets.

A process of its own runs the package for a while and is watched. Growth is the slope of memory over frames, told for
an hour at the profile's camera rate, since a leak that a minute hides fills a board overnight: Theil and Sen's median
of all slopes, over the least memory of each of 20 stretches, so that buffers that come and go do not count.

An allocator takes memory in steps for a while, and one step looks like growth until more is seen: only the later half
counts, and while that does not show that the limit is kept, the package runs on for as long again, to eight times at
most. A leak goes on, warming up ends. The looks share the error (Bonferroni, Dunn 1961).

Source: Sen 1968, "Estimates of the regression coefficient based on Kendall's tau", JASA 63.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import theilslopes  # type: ignore[import-untyped]

from hw_profiles.profile import Profile
from safety_gates.evidence import KeptEvidence
from safety_gates.gates.gate import Quantity, Unmeasured
from safety_gates.looks import Observation
from safety_gates.soak import ROUNDS, Watched, soak
from safety_gates.statistics import Interval, simultaneous_confidence
from safety_gates.trial import Trial
from safety_gates.verdict import Measured

STRETCHES = 20
BYTES_PER_MB, SECONDS_PER_HOUR = 1e6, 3600
QUANTITIES: Mapping[str, Quantity] = {
    "peak_memory": Quantity("MB", "at_most", None, "the most memory a process with nothing but this package holds"),
    "growth": Quantity("MB/h", "at_most", None, "memory that is added in an hour at the profile's camera rate"),
    "energy": Quantity("J", "at_most", None, "energy a frame takes, of the whole module, GPU or CPU package"),
    "temperature": Quantity("°C", "at_most", None, "the hottest that the machine got"),
}
NO_POWER = "this machine does not tell its power (no RAPL counter, no INA sensor, no NVML)"
NO_TEMPERATURE = "this machine does not tell its temperature"
NO_MEMORY = "this system does not tell a process's memory (/proc/self/status)"


class ResourcesGate:
    """See `safety_gates.gates.gate.Gate`."""

    quantities = QUANTITIES

    def measure(self, trial: Trial) -> KeptEvidence | Unmeasured:
        """Run the package for a while in a process of its own."""
        settings = {"soak_frames": trial.case.soak_frames, "growth_limit": _growth_limit(trial)}
        wanted = trial.conditions("resources", settings=settings)
        return trial.obtain(wanted, lambda: _observe(trial))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Figures of the soak; not measured where the machine does not tell."""
        readers = {"peak_memory": _peak, "growth": _growth, "energy": _energy, "temperature": _temperature}
        return {name: readers[name](evidence) for name in wanted}


def memory_mb(evidence: KeptEvidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(L,) frames run, and memory held then, in MB."""
    held = np.asarray(evidence.arrays["rss_bytes"], np.float64) / BYTES_PER_MB
    return np.asarray(evidence.arrays["frame"], np.float64), held


def growth_of(seen: Watched, frames_per_hour: float) -> tuple[float, Interval] | None:
    """MB an hour over the later half of what was seen, and its interval; None from fewer than `STRETCHES` looks."""
    frame, held_mb = seen["frame"], seen["rss_bytes"] / BYTES_PER_MB
    later = frame >= frame[-1] / 2
    if later.sum() < STRETCHES:
        return None
    stretches = np.array_split(np.flatnonzero(later), STRETCHES)
    least = np.array([held_mb[stretch].min() for stretch in stretches])
    middle = np.array([frame[stretch].mean() for stretch in stretches])
    confidence = simultaneous_confidence(ROUNDS)
    slope, _, low, high = (float(each) * frames_per_hour for each in theilslopes(least, middle, confidence))
    return slope, Interval(low, high, confidence)


def _growth_limit(trial: Trial) -> float | None:
    """The least growth in MB/h that the policy admits; None where it does not ask."""
    profile = trial.case.package.profile
    asked = [each.resolved(profile).limit for each in trial.asked("resources") if each.quantity == "growth"]
    return min(asked, default=None)


def _observe(trial: Trial) -> Observation:
    package, limit = trial.case.package, _growth_limit(trial)
    frames_per_hour = _frames_per_hour(package.profile)

    def enough(seen: Watched) -> bool:
        if limit is None or np.isnan(seen["rss_bytes"]).any():
            return True
        growth = growth_of(seen, frames_per_hour)
        return growth is not None and growth[1].high <= limit

    seen = soak(package, trial.case.recording, trial.case.soak_frames, enough=enough)
    return Observation(int(seen["frame"][-1]), {"frames_per_hour": frames_per_hour}, seen)


def _frames_per_hour(profile: Profile) -> float:
    return profile.cameras.rate_hz * profile.cameras.count * SECONDS_PER_HOUR


def _peak(evidence: KeptEvidence) -> Measured:
    peak_bytes = float(evidence.arrays["peak_bytes"][-1])
    if peak_bytes == 0:
        return _untold(evidence, NO_MEMORY)
    return Measured(peak_bytes / BYTES_PER_MB, evidence.evidence.samples, "frames", evidence=evidence.sha256)


def _growth(evidence: KeptEvidence) -> Measured:
    frames = evidence.evidence.samples
    seen = {name: np.asarray(evidence.arrays[name], np.float64) for name in ("frame", "rss_bytes")}
    if np.isnan(seen["rss_bytes"]).any():
        return _untold(evidence, NO_MEMORY)
    growth = growth_of(seen, float(str(evidence.evidence.values["frames_per_hour"])))
    remedy = f"run longer than --soak-frames {evidence.evidence.conditions.settings['soak_frames']}"
    if growth is None:
        return Measured(None, frames, "frames", note="too few frames", remedy=remedy, evidence=evidence.sha256)
    return Measured(growth[0], frames, "frames", growth[1], remedy=remedy, evidence=evidence.sha256)


def _energy(evidence: KeptEvidence) -> Measured:
    """From a counter where there is one, else power by time."""
    names = ("energy_uj", "power_w", "at_ns", "frame")
    energy_uj, power_w, at_ns, frame = (np.asarray(evidence.arrays[name], np.float64) for name in names)
    frames, spent_j = float(frame[-1] - frame[0]), float(energy_uj[-1] - energy_uj[0]) / 1e6
    if math.isnan(spent_j) or spent_j < 0:  # no counter, or it wrapped around
        spent_j = float(np.sum(np.diff(at_ns) / 1e9 * (power_w[1:] + power_w[:-1]) / 2))
    if math.isnan(spent_j) or frames <= 0:
        return _untold(evidence, NO_POWER)
    return Measured(spent_j / frames, evidence.evidence.samples, "frames", evidence=evidence.sha256)


def _temperature(evidence: KeptEvidence) -> Measured:
    told = np.concatenate([evidence.arrays[name] for name in ("temperature_c", "gpu_temperature_c")])
    told = told[~np.isnan(told)]
    if len(told) == 0:
        return _untold(evidence, NO_TEMPERATURE)
    return Measured(float(told.max()), evidence.evidence.samples, "frames", evidence=evidence.sha256)


def _untold(evidence: KeptEvidence, why: str) -> Measured:
    return Measured(None, 0, "frames", note=why, remedy="measure on a machine that does", evidence=evidence.sha256)
