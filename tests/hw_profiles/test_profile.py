"""Hardware profiles: what is shipped, what is refused and how, and that nothing is lost on the way to disk and back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hw_profiles.errors import ProfileError
from hw_profiles.profile import Profile, load_profile, profile_names, version_key

SHIPPED = (
    "arm_cpu",
    "jetson_agx_orin_64gb_dla",
    "jetson_agx_orin_64gb_maxn",
    "jetson_agx_thor_maxn",
    "jetson_orin_nano_8gb_25w",
    "jetson_orin_nx_16gb_25w",
    "x86_cpu",
    "x86_h100",
    "x86_h200",
)
GIB = 1 << 30


def text_of_x86() -> str:
    return load_profile("x86_cpu").to_yaml()


def test_the_shipped_profiles_are_these() -> None:
    assert profile_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_named_as_its_file_and_survives_being_written(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert Profile.from_yaml(profile.to_yaml(), where=name) == profile


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_of_a_shipped_profile_has_a_unit_and_a_source(name: str) -> None:
    def facts(node: object) -> list[dict[str, object]]:
        if isinstance(node, list):
            return [fact for item in node for fact in facts(item)]
        if not isinstance(node, dict):
            assert not isinstance(node, int | float), f"{name}: {node} stands alone"
            return []
        if "value" in node:
            return [node]
        return [fact for item in node.values() for fact in facts(item)]

    found = facts(yaml.safe_load(load_profile(name).to_yaml()))
    assert len(found) >= 8
    assert all(fact["unit"] and len(str(fact["source"])) > 8 for fact in found)


@pytest.mark.parametrize(
    ("name", "capability", "memory_gib", "mode", "dla", "oldest_tensorrt"),
    [
        ("x86_cpu", None, None, None, None, None),
        ("arm_cpu", None, None, None, None, None),
        ("x86_h100", "9.0", None, None, None, "8.6"),
        ("x86_h200", "9.0", None, None, None, "8.6"),
        ("jetson_orin_nano_8gb_25w", "8.7", 8, "25W", 0, "10.3"),
        ("jetson_orin_nx_16gb_25w", "8.7", 16, "25W", 2, "8.5"),
        ("jetson_agx_orin_64gb_dla", "8.7", 64, "MAXN", 2, "8.5"),
        ("jetson_agx_orin_64gb_maxn", "8.7", 64, "MAXN", 2, "8.5"),
        ("jetson_agx_thor_maxn", "11.0", 128, "MAXN", 0, "10.13"),
    ],
)
def test_shipped_profiles_say_what_the_data_sheets_say(
    name: str, capability: str | None, memory_gib: int | None, mode: str | None, dla: int | None, oldest_tensorrt: str
) -> None:
    profile = load_profile(name)
    assert profile.compute_capability == capability
    assert profile.memory_bytes == (None if memory_gib is None else memory_gib * GIB)
    assert profile.power_mode == mode
    assert profile.dla_cores == dla
    assert (profile.tensorrt and profile.tensorrt.minimum) == oldest_tensorrt


@pytest.mark.parametrize("name", SHIPPED)
def test_the_cameras_of_a_shipped_profile_fit_into_its_inference_budget(name: str) -> None:
    """One engine serves all cameras in turn: together they must leave it idle now and then."""
    profile = load_profile(name)
    busy = profile.cameras.count * profile.budget.infer_ms * profile.cameras.rate_hz / 1000
    assert busy <= 0.8


def test_numbers_are_read_as_plain_numbers() -> None:
    profile = load_profile("x86_cpu")
    cameras, budget = profile.cameras, profile.budget
    assert (cameras.count, cameras.width_px, cameras.height_px, cameras.rate_hz) == (1, 1280, 720, 30.0)
    assert (budget.preprocess_ms, budget.infer_ms, budget.postprocess_ms, budget.total_ms) == (5.0, 23.0, 5.0, 33.0)
    assert profile.deadline_ms == 33.3
    assert profile.threads is None
    assert profile.precisions == ("fp32", "int8")


def test_threads_are_a_quantity_in_the_file_and_a_number_in_the_program() -> None:
    text = text_of_x86() + "cpu_threads: {value: 2, unit: threads, source: two are kept for the cameras}\n"
    assert Profile.from_yaml(text, where="mine").threads == 2


def test_a_quantity_is_written_on_one_line() -> None:
    assert "  infer: {value: 23, unit: ms, source: " in text_of_x86()
    assert "precisions: [fp32, int8]\n" in text_of_x86()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("infer: {value: 23, unit: ms", "infer: {value: 23, unit: s", r"budget\.infer: got unit 's', expected 'ms'"),
        ("value: 30, unit: Hz", "value: 30, unit: fps", r"cameras\.rate: got unit 'fps', expected 'Hz'"),
        ("value: 1280, unit: px", "value: 12.5, unit: px", r"cameras\.width: got 12\.5 px, expected a whole number"),
        ("value: 23,", "value: -1,", r"budget\.infer: got -1 ms, expected a finite number of at least 0 ms"),
        ("value: 23,", "value: .inf,", r"budget\.infer: got inf ms, expected a finite number"),
        ("value: 23,", "value: 0,", r"budget\.infer: got 0 ms, expected more than 0 ms"),
        ("value: 23,", "value: '23',", r"budget\.infer\.value: got '23', expected a number"),
        ("value: 23,", f"value: {10**400},", r"budget\.infer\.value: got a number of 1329 bits, expected at most 64"),
        ("value: 23,", "value: true,", r"budget\.infer\.value: got True, expected a number"),
        (
            "engine_kind: onnxrt",
            "engine_kind: openvino",
            r"engine_kind: got 'openvino', expected 'onnxrt' or 'tensorrt'",
        ),
        ("engine_kind: onnxrt", "engine_kind: tensorrt", r"got 'tensorrt' without gpu and tensorrt, expected both"),
        ("[fp32, int8]", "[fp32, int4]", r"precisions\.1: got 'int4', expected 'fp32', 'fp16' or 'int8'"),
        ("[fp32, int8]", "[int8, int8]", r"precisions: got int8, int8, expected each once"),
        ("[fp32, int8]", "[]", r"precisions: got \[\], Tuple should have at least 1 item"),
        ("name: x86_cpu", "name: My CPU", r"name: got 'My CPU', it should match pattern"),
        ("arch: x86_64", "arch: riscv64", r"arch: got 'riscv64', expected 'x86_64' or 'aarch64'"),
        ("arch: x86_64\n", "", r"arch: is missing"),
        ("arch: x86_64", "archh: x86_64", r"archh: is no field here"),
        ("format: tollgate-profile/1", "format: tollgate-profile/9", r"expected 'tollgate-profile/1'"),
        ("arch: x86_64", "arch: x86_64\nname: twice", r"line 5, column 1: key 'name' is written twice"),
        ("arch: x86_64", "arch: [x86_64", r"line \d+, column \d+: "),
    ],
)
def test_a_wrong_profile_is_refused_in_one_line_naming_field_got_and_expected(old: str, new: str, message: str) -> None:
    text = text_of_x86()
    assert old in text
    with pytest.raises(ProfileError, match=message) as refused:
        Profile.from_yaml(text.replace(old, new, 1), where="mine.yaml")
    assert str(refused.value).startswith("mine.yaml: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "12",
        "\0",
        "a: &x [*x]\n",
        "!!python/object:os.system {}\n",
        "name: 2020-13-45\n",
        "? [a]\n: b\n",
        "? {a: b}\n: c\n",
        "[" * 5000,
    ],
)
def test_what_is_no_profile_at_all_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match=r"^mine\.yaml: "):
        Profile.from_yaml(text, where="mine.yaml")


@pytest.mark.parametrize(
    ("infer_ms", "fits"), [(22, True), (23, True), (23.3, True), (23.31, False), (24, False), (500, False)]
)
def test_stages_may_take_the_deadline_together_and_not_more(infer_ms: float, fits: bool) -> None:
    text = text_of_x86().replace("value: 23,", f"value: {infer_ms},")
    if fits:
        assert Profile.from_yaml(text, where="mine").budget.infer_ms == infer_ms
        return
    with pytest.raises(ProfileError, match=r"budget: its stages take .* expected at most the deadline of 33\.3 ms"):
        Profile.from_yaml(text, where="mine")


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("8.4.1", False),
        ("8.5", True),
        ("8.5.0", True),
        ("8.5.2.2", True),
        ("10.3.0.30", True),
        ("10.16.2", True),
        ("11", False),
        ("11.4.1", False),
    ],
)
def test_a_tensorrt_range_begins_at_its_minimum_and_ends_before_below(version: str, inside: bool) -> None:
    tensorrt = load_profile("jetson_orin_nx_16gb_25w").tensorrt
    assert tensorrt is not None
    assert (version in tensorrt) is inside


def test_a_jetpack_outside_the_range_of_its_own_profile_is_refused() -> None:
    text = load_profile("jetson_orin_nx_16gb_25w").to_yaml().replace("tensorrt: '10.16'", "tensorrt: '11.4'")
    with pytest.raises(ProfileError, match=r"JetPack 7\.2 brings 11\.4, expected 8\.5 … below 11"):
        Profile.from_yaml(text, where="mine")


def test_an_empty_tensorrt_range_is_refused() -> None:
    text = load_profile("x86_h200").to_yaml().replace("below: '12'", "below: '8.6'")
    with pytest.raises(ProfileError, match=r"got minimum 8\.6, expected less than below 8\.6"):
        Profile.from_yaml(text, where="mine")


def test_the_documentation_shows_a_profile_that_loads_and_lists_all_shipped_ones() -> None:
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    example = page.split("```yaml\n")[1].split("```")[0]
    assert Profile.from_yaml(example, where="docs/profiles.md").name == "robot"
    assert all(f"| `{name}` |" in page for name in SHIPPED)


@pytest.mark.parametrize("field", Profile.model_fields)
def test_the_documentation_explains_every_field(field: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()
    assert f"`{field}" in page or f"\n{field}: " in page


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ProfileError, match=r"profile 'x87_cpu' is not known; expected one of arm_cpu, .*, x86_h200, or"
    ):
        load_profile("x87_cpu")


def test_a_profile_of_ones_own_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("# our robot\n" + text_of_x86().replace("name: x86_cpu", "name: robot"))
    assert load_profile(path).name == "robot"
    assert load_profile(str(path)) == load_profile(path)


def test_a_missing_file_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"robot\.yaml: cannot be read \(No such file or directory\).*x86_cpu"):
        load_profile(tmp_path / "robot.yaml")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "robot.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ProfileError, match=r"robot\.yaml: byte 6 is no UTF-8"):
        load_profile(tmp_path / "robot.yaml")


milliseconds = st.floats(min_value=0.001, max_value=1e4, allow_nan=False).map(lambda number: round(number, 3))
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)


@given(stages=st.tuples(milliseconds, milliseconds, milliseconds), rate_hz=st.integers(1, 240), source=words)
def test_any_profile_comes_back_equal_from_its_file(
    stages: tuple[float, float, float], rate_hz: int, source: str
) -> None:
    document = yaml.safe_load(text_of_x86())
    document["deadline"]["value"] = sum(stages) + 1
    document["cameras"]["rate"] = {"value": rate_hz, "unit": "Hz", "source": source}
    document["board"] = source
    for stage, taken_ms in zip(("preprocess", "infer", "postprocess"), stages, strict=True):
        document["budget"][stage]["value"] = taken_ms
    profile = Profile.from_yaml(yaml.safe_dump(document, allow_unicode=True), where="drawn")
    assert Profile.from_yaml(profile.to_yaml(), where="again") == profile


@given(st.integers(0, 1300), st.text(max_size=3), st.integers(0, 40))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(place: int, inserted: str, removed: int) -> None:
    text = load_profile("x86_cpu").to_yaml()
    damaged = text[:place] + inserted + text[place + removed :]
    with suppress(ProfileError):
        assert Profile.from_yaml(damaged, where="damaged").name


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.lists(st.integers(0, 40), min_size=1, max_size=4))
def test_versions_order_by_number_and_not_by_letter(first: list[int], second: list[int]) -> None:
    def padded(numbers: list[int]) -> list[int]:
        return numbers + [0] * (4 - len(numbers))

    left, right = (version_key(".".join(map(str, numbers))) for numbers in (first, second))
    assert (left < right) is (padded(first) < padded(second))
    assert (left == right) is (padded(first) == padded(second))


@pytest.mark.parametrize(
    ("name", "runs_on", "fits"),
    [
        ("jetson_agx_orin_64gb_maxn", "dla0", True),
        ("jetson_agx_orin_64gb_maxn", "dla1", True),
        ("jetson_agx_thor_maxn", "gpu", True),
        ("jetson_agx_thor_maxn", "dla0", False),
        ("x86_h200", "dla0", False),
        ("x86_cpu", "gpu", False),
    ],
)
def test_a_profile_builds_only_for_accelerators_that_the_machine_has(name: str, runs_on: str, fits: bool) -> None:
    text = load_profile(name).to_yaml() + f"tensorrt_build: {{runs_on: {runs_on}, source: a test}}\n"
    if fits:
        built = Profile.from_yaml(text, where="mine").tensorrt_build
        assert built is not None
        assert built.dla_core == {"gpu": None, "dla0": 0, "dla1": 1}[runs_on]
    else:
        with pytest.raises(ProfileError, match="tensorrt"):
            Profile.from_yaml(text, where="mine")
