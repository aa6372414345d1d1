"""The resources gate: how much memory a package takes, whether it grows, what it draws and how hot it gets.

A process of its own runs the package for a while and is watched. Growth is the slope of memory over frames, told for
an hour at the profile's camera rate, since a leak that a minute hides fills a board overnight: Theil and Sen's median
of all slopes, over the least memory of each of 20 stretches, so that buffers that come and go do not count.

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
from safety_gates.soak import soak
from safety_gates.statistics import CONFIDENCE, Interval
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
        wanted = trial.conditions("resources", settings={"soak_frames": trial.case.soak_frames})
        return trial.obtain(wanted, lambda: _observe(trial))

    def read(self, evidence: KeptEvidence, wanted: Collection[str]) -> Mapping[str, Measured]:
        """Figures of the soak; not measured where the machine does not tell."""
        readers = {"peak_memory": _peak, "growth": _growth, "energy": _energy, "temperature": _temperature}
        return {name: readers[name](evidence) for name in wanted}


def memory_mb(evidence: KeptEvidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(L,) frames run, and memory held then, in MB."""
    held = np.asarray(evidence.arrays["rss_bytes"], np.float64) / BYTES_PER_MB
    return np.asarray(evidence.arrays["frame"], np.float64), held


def _observe(trial: Trial) -> Observation:
    frames = trial.case.soak_frames
    arrays = soak(trial.case.package, trial.case.recording, frames)
    return Observation(frames, {"frames_per_hour": _frames_per_hour(trial.case.package.profile)}, arrays)


def _frames_per_hour(profile: Profile) -> float:
    return profile.cameras.rate_hz * profile.cameras.count * SECONDS_PER_HOUR


def _peak(evidence: KeptEvidence) -> Measured:
    peak_bytes = int(evidence.arrays["peak_bytes"][0])
    if peak_bytes == 0:
        return _untold(evidence, NO_MEMORY)
    return Measured(peak_bytes / BYTES_PER_MB, evidence.evidence.samples, "frames", evidence=evidence.sha256)


def _growth(evidence: KeptEvidence) -> Measured:
    frame, held_mb = memory_mb(evidence)
    if np.isnan(held_mb).any() or len(frame) < STRETCHES:
        return _untold(evidence, NO_MEMORY)
    stretches = np.array_split(np.arange(len(frame)), STRETCHES)
    least = np.array([held_mb[stretch].min() for stretch in stretches])
    middle = np.array([frame[stretch].mean() for stretch in stretches])
    per_hour = float(str(evidence.evidence.values["frames_per_hour"]))
    slope, _, low, high = (float(each) * per_hour for each in theilslopes(least, middle, CONFIDENCE))
    remedy = f"run longer than --soak-frames {evidence.evidence.samples}"
    interval = Interval(low, high)
    return Measured(slope, evidence.evidence.samples, "frames", interval, remedy=remedy, evidence=evidence.sha256)


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
