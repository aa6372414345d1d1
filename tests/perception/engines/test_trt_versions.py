from __future__ import annotations

import pytest

from perception.engines.trt_versions import traits_of
from perception.errors import EngineError

# version: precision, network flags; progress, plans for elsewhere and builder levels, integer weights
TRUTH = {
    "8.5": ("flag", ("EXPLICIT_BATCH",), False, False, False),
    "8.5.2.2": ("flag", ("EXPLICIT_BATCH",), False, False, False),
    "8.5.99": ("flag", ("EXPLICIT_BATCH",), False, False, False),
    "8.6": ("flag", ("EXPLICIT_BATCH",), False, True, False),
    "8.6.0": ("flag", ("EXPLICIT_BATCH",), False, True, False),
    "8.6.2.3": ("flag", ("EXPLICIT_BATCH",), False, True, False),
    "9.3.0": ("flag", ("EXPLICIT_BATCH",), False, True, False),
    "10.0.0": ("flag", (), True, True, True),
    "10.3.0": ("flag", (), True, True, True),
    "10.16.1.11": ("flag", (), True, True, True),
    "10.99": ("flag", (), True, True, True),
    "11.0.0.114": ("typed", ("STRONGLY_TYPED",), True, True, True),
    "11.4.0.106": ("typed", ("STRONGLY_TYPED",), True, True, True),
}


@pytest.mark.parametrize(("version", "expected"), TRUTH.items())
def test_what_a_release_can(version, expected):
    traits = traits_of(version)
    assert traits.version_compatible is traits.hardware_compatible is traits.builder_levels
    got = (
        traits.precision,
        traits.network_flags,
        traits.reports_progress,
        traits.version_compatible,
        traits.integer_weights,
    )
    assert (traits.version, got) == (version, expected)


@pytest.mark.parametrize("version", ["7.2.3", "8.4.3.1", "8.4.99", "12", "12.0.0", "20.1"])
def test_releases_nobody_wrote_it_for_are_refused(version):
    with pytest.raises(EngineError, match=f"TensorRT {version}: expected 8.5 or newer, below 12; install one of those"):
        traits_of(version)


@pytest.mark.parametrize("version", TRUTH)
@pytest.mark.parametrize(
    ("half", "quantized", "flags"),
    [(False, False, ()), (True, False, ("FP16",)), (False, True, ("INT8",)), (True, True, ("FP16", "INT8"))],
)
def test_builder_flags_allow_precisions_only_where_the_file_does_not_say_them(version, half, quantized, flags):
    traits = traits_of(version)
    assert traits.builder_flags(half=half, quantized=quantized) == (() if version.startswith("11") else flags)
