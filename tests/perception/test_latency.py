from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.latency import LatencyRecorder, samples_needed

DURATIONS_NS = st.lists(st.integers(0, 2**62), min_size=1, max_size=200)


def recorder_of(durations_ns: list[int]) -> LatencyRecorder:
    recorder = LatencyRecorder()
    for duration_ns in durations_ns:
        recorder.record(duration_ns)
    return recorder


def true_percentile(durations_ns: list[int], percent: float) -> int:
    """Nearest rank, straight from the sorted list."""
    rank = max(1, -(-round(percent * 10) * len(durations_ns) // 1000))
    return sorted(durations_ns)[rank - 1]


@given(DURATIONS_NS, st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_never_too_small_and_at_most_a_half_percent_too_large(durations_ns, percent):
    reported, true = recorder_of(durations_ns).percentile_ns(percent), true_percentile(durations_ns, percent)
    assert true <= reported <= true * 1.005


@given(DURATIONS_NS)
def test_count_minimum_maximum_and_mean_are_exact(durations_ns):
    recorder = recorder_of(durations_ns)
    assert (recorder.samples, recorder.min_ns, recorder.max_ns) == (
        len(durations_ns),
        min(durations_ns),
        max(durations_ns),
    )
    assert recorder.mean_ns == sum(durations_ns) / len(durations_ns)


@given(DURATIONS_NS, DURATIONS_NS)
def test_merging_is_the_same_as_recording_everything_in_one(first, second):
    merged = recorder_of(first)
    merged.merge(recorder_of(second))
    assert merged.to_dict() == recorder_of(first + second).to_dict()


def test_merging_with_an_empty_recorder_changes_nothing():
    recorder, empty = recorder_of([5, 7]), LatencyRecorder()
    before = recorder.to_dict()
    recorder.merge(LatencyRecorder())
    empty.merge(recorder)
    assert recorder.to_dict() == before == empty.to_dict()


@pytest.mark.parametrize(("percent", "needed"), [(50, 20), (90, 100), (99, 1000), (99.9, 10_000), (99.99, 100_000)])
def test_a_percentile_needs_ten_samples_beyond_it(percent, needed):
    assert samples_needed(percent) == needed
    few, enough = recorder_of([1] * (needed - 1)), recorder_of([1] * needed)
    assert few.percentile_or_none_ns(percent) is None
    assert enough.percentile_or_none_ns(percent) == 1


def test_p99_9_of_500_samples_is_reported_as_unknown():
    figures = recorder_of([1_000_000] * 500).to_dict()
    assert figures["p99_9_ms"] is figures["p99_ms"] is None
    assert figures["p90_ms"] == figures["max_ms"] == 1.0
    assert figures["samples"] == 500


def test_percentiles_of_a_camera_pipeline_agree_with_numpy():
    durations_ns = np.random.default_rng(7).lognormal(16, 0.3, 19_999).astype(np.int64)
    recorder = recorder_of(durations_ns.tolist())
    for percent in (50, 90, 99, 99.9):
        true = np.percentile(durations_ns, percent, method="inverted_cdf")
        assert recorder.percentile_ns(percent) == pytest.approx(true, rel=0.004)


def test_an_empty_recorder_has_no_figures():
    assert set(LatencyRecorder().to_dict().values()) == {0, None}
    with pytest.raises(ValueError, match="nothing was recorded"):
        LatencyRecorder().percentile_ns(50)


def test_a_negative_duration_is_refused_and_not_counted():
    recorder = LatencyRecorder()
    with pytest.raises(ValueError, match="got -1 ns, expected at least 0"):
        recorder.record(-1)
    assert recorder.samples == 0


@pytest.mark.parametrize("percent", [-1, 100.1])
def test_a_percentile_outside_the_scale_is_refused(percent):
    with pytest.raises(ValueError, match="expected 0 to 100"):
        recorder_of([1]).percentile_ns(percent)


@pytest.mark.parametrize("percent", [0, 100])
def test_no_number_of_samples_carries_the_ends_of_the_scale(percent):
    with pytest.raises(ValueError, match="more than 0 and less than 100"):
        samples_needed(percent)


def test_memory_is_bounded_by_the_buckets_and_not_by_the_samples():
    recorder = LatencyRecorder()
    for duration_ns in range(0, 60_000_000, 600):
        recorder.record(duration_ns)
    assert recorder.samples == 100_000
    assert len(recorder._buckets) < 5_000
