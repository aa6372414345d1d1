"""The engine package: an engine's bytes with everything needed to run and to question them.

A package is a folder::

    manifest.json      names every other file with size and sha256, and everything that influenced the engine's bytes
    engine.onnx        the engine (its name depends on the kind)
    model_spec.yaml    how to feed it and how to read it
    profile.yaml       the hardware profile it was built for
    compile.json       what the compiler measured: candidates, accuracy, latency, decision
    calibration.json   which frames calibrated it (absent where nothing was calibrated)

The sha256 of `manifest.json` stands for the whole package: evidence and releases name it.
A folder is no package until `open_package` compared every byte; only then is there an `EnginePackage`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.profile import Profile
from hw_profiles.yaml_files import complaints_of
from perception.errors import PackageError
from perception.files import json_bytes, sha256_of_bytes, staged_folder
from perception.model_spec import ModelSpec

MANIFEST, SPEC, PROFILE = "manifest.json", "model_spec.yaml", "profile.yaml"

Precision = Literal["fp32", "fp16", "int8", "mixed"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Strict):
    """Size and digest of one file of the package."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class EngineEntry(_Strict):
    """The engine: its kind, its file and the precision it computes in.

    Attributes:
        kind: name in `perception.engines.table.ENGINES`.
        file: name inside the package.
        precision: what the compiler chose.
        requires: what must match on the machine that opens it, as preflight reads it.
    """

    kind: str
    file: str
    precision: Precision
    requires: dict[str, str] = Field(default_factory=dict)


class Manifest(_Strict):
    """What is in the package and what made it."""

    format: Literal["tollgate-package/1"] = "tollgate-package/1"
    name: str
    profile: str
    engine: EngineEntry
    files: dict[str, FileEntry]
    build: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class EnginePackage:
    """A package whose every byte matched its manifest when it was opened.

    Attributes:
        folder: where it lies.
        sha256: digest of its manifest; stands for all its bytes.
        manifest: what is in it and what made it.
        spec: how to feed and read the engine.
        profile: the hardware profile it was built for.
        engine_bytes: the verified bytes; open the engine from these, not from the file again.
    """

    folder: Path
    sha256: str
    manifest: Manifest
    spec: ModelSpec
    profile: Profile
    engine_bytes: bytes

    @property
    def engine_sha256(self) -> str:
        """Digest of the engine's file."""
        return self.manifest.files[self.manifest.engine.file].sha256

    def document(self, name: str) -> JsonValue:
        """A JSON file of the package; see `content`."""
        content: JsonValue = json.loads(self.content(name))
        return content

    def content(self, name: str) -> bytes:
        """A file of the package, compared with its digest again.

        Raises:
            PackageError: no such file, or it changed since the package was opened.
        """
        if name not in self.manifest.files:
            raise PackageError(f"{self.folder}: has no {name}; it holds {', '.join(sorted(self.manifest.files))}")
        return _verified_bytes(self.folder, name, self.manifest.files[name])


def write_package(
    folder: Path, files: Mapping[str, bytes], *, name: str, engine: EngineEntry, build: Mapping[str, JsonValue]
) -> EnginePackage:
    """Write a package whole or not at all, and open it again from disk.

    Args:
        folder: where; an older package there is replaced.
        files: name → bytes, everything but the manifest; must hold the engine, the spec and the profile.
        name: the package's name.
        engine: the manifest's engine entry.
        build: everything that influenced the engine's bytes.

    Raises:
        OutputError: the folder cannot be written.
        ValueError: a required file is missing in `files`.
    """
    if missing := {engine.file, SPEC, PROFILE} - set(files):
        raise ValueError(f"package {name}: missing {', '.join(sorted(missing))}")
    profile = Profile.from_yaml(files[PROFILE].decode(), where=PROFILE)
    entries = {file: FileEntry(sha256=sha256_of_bytes(content), bytes=len(content)) for file, content in files.items()}
    manifest = Manifest(name=name, profile=profile.name, engine=engine, files=entries, build=dict(build))
    with staged_folder(folder) as staged:
        for file, content in files.items():
            (staged / file).write_bytes(content)
        (staged / MANIFEST).write_bytes(json_bytes(manifest.model_dump(mode="json")))
    return open_package(folder)


def open_package(folder: Path) -> EnginePackage:
    """Read a package and compare every byte with its manifest before anything is interpreted.

    Raises:
        PackageError: missing or foreign folder, file missing, added or altered.
        SpecError, ProfileError: the spec or profile inside does not parse.
    """
    manifest_bytes = _manifest_bytes(folder)
    manifest = _manifest(manifest_bytes, folder)
    _refuse_other_files(folder, manifest)
    contents = {name: _verified_bytes(folder, name, entry) for name, entry in manifest.files.items()}
    return EnginePackage(
        folder=folder,
        sha256=sha256_of_bytes(manifest_bytes),
        manifest=manifest,
        spec=ModelSpec.from_yaml(contents[SPEC].decode(), where=f"{folder}/{SPEC}"),
        profile=Profile.from_yaml(contents[PROFILE].decode(), where=f"{folder}/{PROFILE}"),
        engine_bytes=contents[manifest.engine.file],
    )


def _manifest_bytes(folder: Path) -> bytes:
    try:
        return (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise PackageError(
            f"{folder}: no engine package (cannot read {MANIFEST}: {error.strerror}); "
            "make one with: tollgate compile MODEL.onnx --profile NAME --output FOLDER"
        ) from error


def _manifest(content: bytes, folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise PackageError(f"{folder}/{MANIFEST}: {complaints_of(error)}; compile the package again") from error
    if missing := {manifest.engine.file, SPEC, PROFILE} - set(manifest.files):
        raise PackageError(
            f"{folder}/{MANIFEST}: does not list {', '.join(sorted(missing))}; compile the package again"
        )
    if outside := [name for name in manifest.files if Path(name).name != name]:
        raise PackageError(f"{folder}/{MANIFEST}: {outside[0]!r} is no plain file name; do not use this package")
    return manifest


def _refuse_other_files(folder: Path, manifest: Manifest) -> None:
    present = {child.name for child in folder.iterdir()} - {MANIFEST}
    if missing := sorted(set(manifest.files) - present):
        raise PackageError(f"{folder}: {', '.join(missing)} is missing; copy or compile the package again")
    if added := sorted(present - set(manifest.files)):
        raise PackageError(f"{folder}: {', '.join(added)} is not in its manifest; remove it or compile again")


def _verified_bytes(folder: Path, name: str, entry: FileEntry) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise PackageError(f"{folder / name}: cannot be read ({error.strerror}); copy the package again") from error
    if (got := sha256_of_bytes(content)) != entry.sha256:
        raise PackageError(
            f"{folder / name}: got sha256 {got[:16]}… ({len(content)} bytes), the manifest says {entry.sha256[:16]}… "
            f"({entry.bytes} bytes); the file was altered: copy or compile the package again"
        )
    return content
