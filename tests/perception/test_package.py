from __future__ import annotations

import json
from pathlib import Path

import pytest

from perception.errors import PackageError
from perception.package import MANIFEST, open_package
from tests.perception.builders import null_package


def test_a_package_opens_as_it_was_written(tmp_path: Path) -> None:
    written = null_package(tmp_path / "package")
    assert open_package(tmp_path / "package") == written


def test_equal_content_gives_an_equal_digest(tmp_path: Path) -> None:
    assert null_package(tmp_path / "a").sha256 == null_package(tmp_path / "b").sha256


@pytest.mark.parametrize("name", ["engine.json", "model_spec.yaml", "profile.yaml"])
def test_one_flipped_bit_in_any_file_is_refused(tmp_path: Path, name: str) -> None:
    null_package(tmp_path / "package")
    path = tmp_path / "package" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(PackageError, match=rf"{name}: got sha256 .* the manifest says .* altered"):
        open_package(tmp_path / "package")


def test_a_flipped_bit_in_the_manifest_changes_the_digest_or_is_refused(tmp_path: Path) -> None:
    digest = null_package(tmp_path / "package").sha256
    path = tmp_path / "package" / MANIFEST
    original = path.read_bytes()
    for position in range(0, len(original), 7):
        content = bytearray(original)
        content[position] ^= 1
        path.write_bytes(content)
        try:
            assert open_package(tmp_path / "package").sha256 != digest
        except PackageError as error:
            assert "\n" not in str(error)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    null_package(tmp_path / "package")
    (tmp_path / "package" / "engine.json").unlink()
    with pytest.raises(PackageError, match=r"engine\.json is missing"):
        open_package(tmp_path / "package")


def test_an_added_file_is_named(tmp_path: Path) -> None:
    null_package(tmp_path / "package")
    (tmp_path / "package" / "libevil.so").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"libevil\.so is not in its manifest"):
        open_package(tmp_path / "package")


def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    null_package(tmp_path / "package")
    path = tmp_path / "package" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"]["../outside"] = manifest["files"]["engine.json"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="no plain file name"):
        open_package(tmp_path / "package")


def test_a_folder_that_is_no_package_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"no engine package.*tollgate compile"):
        open_package(tmp_path)
