"""Every name of TensorRT that is used is in the bindings as published, with as many parameters as it is given.

`python -m scripts.tensorrt_names` made the record, from the wheels it names.
"""

from __future__ import annotations

import json

import pytest

from compile.backends.tensorrt import worker_options
from perception.engines.tensorrt_build import BuildOptions
from perception.engines.trt_versions import traits_of
from scripts.tensorrt_names import RECORD, ROOT, SOURCES, overridden, used
from tests.compile.builders import imported_graph, segmenter

RELEASES = json.loads(RECORD.read_text())
SINCE = {  # names that not every release has → what says so
    "IProgressMonitor": "reports_progress",
    "IProgressMonitor.__init__": "reports_progress",
    "IProgressMonitor.phase_start": "reports_progress",
    "IProgressMonitor.step_complete": "reports_progress",
    "IProgressMonitor.phase_finish": "reports_progress",
    "IBuilderConfig.progress_monitor": "reports_progress",
}
OF_PYTHON = {"__version__"}


def signatures(version: str, name: str) -> list[str] | None:
    """Of each overload; None where the release does not have the name."""
    owner, _, member = name.rpartition(".")
    members = RELEASES[version]["members"].get(owner, {})
    if member == "__init__":
        return [] if owner in RELEASES[version]["members"][""] else None
    return members.get(member)


def fits(signature: str, count: int) -> bool:
    names = [name for name in signature.split(", ") if name]
    return sum(not name.endswith("=") for name in names) <= count <= len(names)


def test_the_releases_that_jetpack_brings_are_recorded():
    assert {".".join(version.split(".")[:2]) for version in RELEASES} >= {"8.6", "10.3", "10.16", "11.4"}


def test_every_source_that_imports_tensorrt_is_checked():
    sources = [path for room in ("compile", "perception") for path in (ROOT / room).rglob("*.py")]
    importing = {str(p.relative_to(ROOT)) for p in sources if "import tensorrt as trt" in p.read_text()}
    assert importing
    assert importing <= set(SOURCES)


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_name_is_there_and_takes_what_it_is_given(source, version):
    traits = traits_of(version)
    names = {name: counts for name, counts in used(source).items() if name not in OF_PYTHON}
    assert names
    for name, counts in names.items():
        there = signatures(version, name)
        assert (there is not None) is (getattr(traits, SINCE[name]) if name in SINCE else True), name
        for count in counts if there else ():
            assert any(fits(signature, count) for signature in there), (name, count, there)


@pytest.mark.parametrize("source", SOURCES)
def test_every_object_of_the_table_is_met_in_its_source(source):
    classes = {name.rpartition(".")[0] for name in used(source)}
    assert set(SOURCES[source].values()) <= classes


@pytest.mark.parametrize("version", RELEASES)
@pytest.mark.parametrize("source", SOURCES)
def test_methods_that_tensorrt_calls_take_what_it_gives(source, version):
    for name, count in overridden(source).items():
        there = signatures(version, name)
        if there is None:
            assert not getattr(traits_of(version), SINCE[name])
        else:
            assert all(fits(signature, count) for signature in there), name


@pytest.mark.parametrize("version", RELEASES)
def test_every_flag_that_is_asked_for_by_name_is_there(version, tmp_path):
    traits, members = traits_of(version), RELEASES[version]["members"]
    assert set(traits.network_flags) <= set(members["NetworkDefinitionCreationFlag"])
    assert ("FP16" in members["BuilderFlag"]) is (traits.precision == "flag")
    options = BuildOptions(half=True, version_compatible=True, hardware_compatible=True)
    asked = worker_options(imported_graph(segmenter(), tmp_path).model, options, traits)["flags"]
    all_flags = {*asked, *traits.builder_flags(half=True, quantized=True), "SPARSE_WEIGHTS", "TF32"}
    assert all_flags <= set(members["BuilderFlag"])
    assert {"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"} <= set(members["DataType"])
