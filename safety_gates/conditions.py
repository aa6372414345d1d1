"""What a measurement is bound to: package, reference, frames, labels, settings, machine, version.

Where any of these differs, a measurement speaks of something else; `Conditions.differences` says of what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from perception.errors import LabelError, SourceError
from perception.files import sha256_of_bytes, sha256_of_file
from perception.package import EnginePackage

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


ROOMS = ("hw_profiles", "perception", "compile", "safety_gates")
NOT_MEASURING = frozenset({"report", "verbs", "rollout"})
"""Folders whose code shows or distributes what was measured and has no part in measuring."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """Version of this project and a digest of the code that measures: an edited gate is another gate."""
    root = Path(__file__).resolve().parents[1]
    sources = sorted(path for room in ROOMS for path in (root / room).rglob("*.py"))
    lines = [
        f"{path.relative_to(root).as_posix()} {sha256_of_file(path)}\n"
        for path in sources
        if not NOT_MEASURING & set(path.relative_to(root).parts)
    ]
    return f"{version('tollgate')}+{sha256_of_bytes(''.join(lines).encode())[:12]}"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(_Strict):
    """The package that was measured: its bytes, its engine's bytes, and the profile it was built for."""

    name: str
    package_sha256: Sha256
    engine_sha256: Sha256
    profile: str

    @classmethod
    def of(cls, package: EnginePackage) -> Subject:
        """The subject that a verified package is."""
        return cls(
            name=package.manifest.name,
            package_sha256=package.sha256,
            engine_sha256=package.engine_sha256,
            profile=package.profile.name,
        )


class DataSet(_Strict):
    """A recording, or its labels: every file with its digest, by path inside the folder."""

    name: str
    files: dict[str, Sha256] = Field(min_length=1)

    @classmethod
    def of(cls, path: Path, error_type: type[SourceError] | type[LabelError]) -> DataSet:
        """Digest a file, or every file under a folder.

        Raises:
            SourceError, LabelError: as asked; missing, empty or unreadable.
        """
        try:
            paths = sorted(child for child in path.rglob("*") if child.is_file()) if path.is_dir() else [path]
            files = {
                str(child.relative_to(path)) if child != path else path.name: sha256_of_file(child) for child in paths
            }
        except OSError as error:
            raise error_type(f"{path}: cannot be read ({error.strerror}); choose a readable file or folder") from error
        if not files:
            raise error_type(f"{path}: is an empty folder, expected files")
        return cls(name=path.name, files=files)

    @classmethod
    def together(cls, members: Sequence[DataSet]) -> DataSet:
        """Several recordings as one: files by number and name of their recording; one alone stays as it is."""
        if len(members) == 1:
            return members[0]
        files = {
            f"{number} {member.name}/{name}": digest
            for number, member in enumerate(members, start=1)
            for name, digest in member.files.items()
        }
        return cls(name=", ".join(member.name for member in members), files=files)

    def difference(self, other: DataSet) -> str | None:
        """What differs, in words; the name of the folder does not count."""
        if changed := sorted(
            name for name in self.files.keys() & other.files.keys() if self.files[name] != other.files[name]
        ):
            return f"{changed[0]} changed" + _and_more(changed)
        if added := sorted(other.files.keys() - self.files.keys()):
            return f"{added[0]} was added" + _and_more(added)
        if removed := sorted(self.files.keys() - other.files.keys()):
            return f"{removed[0]} is gone" + _and_more(removed)
        return None


class Conditions(_Strict):
    """Everything a measurement is bound to.

    Attributes:
        measurement: what was measured: results, accuracy, parity, latency, provenance.
        subject: the package.
        reference: the package it was compared with, if any.
        recording: the frames, if any.
        labels: the ground truth, if any.
        settings: how it was measured.
        machine: what the machine is; nothing that changes by itself.
        tollgate: version of this project and digest of its code, see `code_version`.
    """

    measurement: str
    subject: Subject
    reference: Subject | None = None
    recording: DataSet | None = None
    labels: DataSet | None = None
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    machine: dict[str, JsonValue]
    tollgate: str

    def differences(self, wanted: Conditions) -> tuple[str, ...]:
        """Every reason why this does not serve where `wanted` is asked for; empty where it does."""
        if other := subject_difference(self.subject, wanted.subject, "package"):
            return (other,)
        reasons = [
            subject_difference(self.reference, wanted.reference, "reference"),
            _data_set_difference(self.recording, wanted.recording, "recording"),
            _data_set_difference(self.labels, wanted.labels, "labels"),
            _mapping_difference(self.settings, wanted.settings, "setting"),
            _mapping_difference(self.machine, wanted.machine, "machine:"),
            None
            if self.tollgate == wanted.tollgate
            else f"made by tollgate {self.tollgate}, this is {wanted.tollgate}",
        ]
        return tuple(reason for reason in reasons if reason is not None)


def subject_difference(have: Subject | None, want: Subject | None, what: str) -> str | None:
    """What differs between two packages, in words; None where nothing does."""
    if have is None or want is None:
        return (
            None
            if have is want
            else f"{what}: {'none' if have is None else have.name} then, {'none' if want is None else want.name} now"
        )
    if have.profile != want.profile:
        return f"{what}: measured for profile {have.profile}, this is {want.profile}"
    if have.package_sha256 != want.package_sha256 or have.engine_sha256 != want.engine_sha256:
        return f"{what}: measured on {have.package_sha256[:16]}…, this is {want.package_sha256[:16]}…"
    return None


def _data_set_difference(have: DataSet | None, want: DataSet | None, what: str) -> str | None:
    if have is None or want is None:
        return (
            None
            if have is want
            else f"{what}: {'none' if have is None else have.name} then, {'none' if want is None else want.name} now"
        )
    reason = have.difference(want)
    return None if reason is None else f"{what}: {reason}"


def _mapping_difference(have: Mapping[str, JsonValue], want: Mapping[str, JsonValue], what: str) -> str | None:
    for key in sorted(have.keys() | want.keys()):
        if have.get(key) != want.get(key):
            return f"{what} {key} was {have.get(key)}, is {want.get(key)}"
    return None


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
