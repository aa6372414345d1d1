"""Growth of memory, on simulated soaks: what an allocator does while it warms up, and leaks of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from perception.errors import EngineError
from safety_gates.gates.resources import growth_of
from safety_gates.policy import load_policy
from safety_gates.soak import ROUNDS, soak
from tests.safety_gates.builders import null_package, patient_profile

FRAMES, EVERY, PAGE, FRAMES_PER_HOUR, SOAKS = 1000, 5, 4096, 108_000, 100
LIMIT = next(float(limit.limit) for limit in load_policy(None).limits if limit.claim == "resources.growth")
LEAST_LEAK = LIMIT * 1e6 / FRAMES_PER_HOUR  # bytes a frame


def _soak(frame, held_bytes, generator):
    """As a process tells it: whole pages, of which a few come and go."""
    passing = generator.integers(0, 3, len(frame)) * PAGE * (generator.random(len(frame)) < 0.1)
    return {"frame": frame, "rss_bytes": np.floor((held_bytes + passing) / PAGE) * PAGE}


def _verdict(frame, held_bytes, generator):
    """Round after round, as the gate asks for them."""
    seen = _soak(frame, held_bytes, generator)
    for number in range(ROUNDS):
        until = seen["frame"] <= FRAMES * 2**number
        _, interval = growth_of({name: column[until] for name, column in seen.items()}, FRAMES_PER_HOUR)
        if interval.high <= LIMIT:
            return "kept"
    return "broken" if interval.low > LIMIT else "undecided"


def _verdicts(held):
    """The verdict of each of many soaks; `held` makes bytes from frames and a generator."""
    frame = np.arange(0, FRAMES * 2 ** (ROUNDS - 1) + 1, EVERY, dtype=np.float64)
    generators = [np.random.default_rng(seed) for seed in range(SOAKS)]
    return {_verdict(frame, held(frame, each), each) for each in generators}


def _one_step(size_bytes):
    return lambda frame, generator: (frame >= generator.integers(FRAMES)) * size_bytes


def _warming_up(size_bytes):
    """Steps of about this size, rarer and rarer."""

    def held(frame, generator):
        steps = generator.random(len(frame)) < 16 / (frame + 300)
        return np.cumsum(steps * generator.exponential(size_bytes, len(frame)))

    return held


@pytest.mark.parametrize(
    "held",
    [
        lambda frame, _: frame * 0,
        lambda frame, _: frame % 137 * 3e3,  # collected now and then
        lambda frame, _: frame * 0.9 * LEAST_LEAK,
        *map(_one_step, (64e3, 512e3, 1e6, 8e6)),
        *map(_warming_up, (20e3, 64e3, 132e3)),
    ],
)
def test_what_does_not_grow_for_ever_keeps_the_limit_in_every_soak(held):
    assert _verdicts(held) == {"kept"}


@pytest.mark.parametrize(
    "held",
    [
        lambda frame, _: frame * 1.1 * LEAST_LEAK,
        lambda frame, _: frame * PAGE,
        lambda frame, _: frame // 100 * 100 * 2 * LEAST_LEAK,  # in bursts
        lambda frame, generator: _warming_up(132e3)(frame, generator) + frame * 2 * LEAST_LEAK,
    ],
)
def test_a_leak_is_found_in_every_soak(held):
    assert _verdicts(held) == {"broken"}


def test_a_soak_goes_on_until_it_is_enough(tmp_path, short_drive):
    engine = null_package(tmp_path / "package", service_ms=0.0, profile=patient_profile())
    asked = []
    seen = soak(engine, short_drive[0], 50, enough=lambda seen: asked.append(int(seen["frame"][-1])) or len(asked) == 2)
    assert asked == [50, 100]
    assert seen["frame"].tolist() == list(range(101))
    assert 1e6 < seen["rss_bytes"].max() <= seen["peak_bytes"][-1]


def test_a_soak_that_fails_says_why_in_one_line(tmp_path, short_drive):
    engine = null_package(tmp_path / "package", service_ms=0.0, profile=patient_profile())
    (engine.folder / "engine.json").write_text("{}")
    with pytest.raises(EngineError, match=r"^soak of null: .*engine.json.*; run the package with: tollgate bench$"):
        soak(engine, short_drive[0], 50, enough=lambda _: True)


def test_a_handful_of_looks_tells_no_growth():
    frame = np.arange(30.0)
    assert growth_of({"frame": frame, "rss_bytes": frame * PAGE}, FRAMES_PER_HOUR) is None
