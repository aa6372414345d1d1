"""Evidence: a measurement as a file, bound by digest to what was measured, on what, with what.

A shelf is a folder of `<sha256>.json` files, each named after its own digest, with arrays beside them in
`<sha256>.npz`. Evidence is re-used where everything it is bound to is equal; otherwise the shelf says what differs.
Reading compares every digest: damaged evidence, or evidence of another package, profile, machine or recording, is
refused with the reason.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.errors import EvidenceError
from perception.files import json_bytes, sha256_of_bytes, write_atomically
from safety_gates.conditions import Conditions, Sha256, Subject, subject_difference

# How far evidence is from what is wanted: a number of differences, or one of these. The nearest is the reason told.
DAMAGED, OTHER_SUBJECT = 100, 200

ArrayMap = Mapping[str, NDArray[np.generic]]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArrayFile(_Strict):
    """The arrays of a measurement, in a file of their own."""

    file: str
    sha256: Sha256


class Evidence(_Strict):
    """One measurement as it stands in its file.

    Attributes:
        conditions: what it is bound to.
        command: the command line that made it.
        samples: how many things were measured.
        started_ns: UTC in nanoseconds since 1970.
        ended_ns: the same at the end.
        before: temperature, clocks and the like when it started, as far as the machine can say.
        after: the same at the end.
        values: figures and facts.
        arrays: what is too long for JSON.
        rests_on: digests of the evidence it was computed from; altered, that takes this down with it.
    """

    format: Literal["tollgate-evidence/1"] = "tollgate-evidence/1"
    conditions: Conditions
    command: str
    samples: int = Field(ge=0)
    started_ns: int
    ended_ns: int
    before: dict[str, JsonValue]
    after: dict[str, JsonValue]
    values: dict[str, JsonValue]
    arrays: ArrayFile | None = None
    rests_on: tuple[Sha256, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """Evidence that lies on a shelf and whose every digest matched when it was read.

    Attributes:
        evidence: the measurement.
        arrays: its arrays by name.
        sha256: digest of its JSON file; names it.
    """

    evidence: Evidence
    arrays: ArrayMap
    sha256: str


class Shelf:
    """A folder of evidence."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; it is made when the first evidence is kept."""
        self.folder = folder

    def keep(self, evidence: Evidence, arrays: ArrayMap) -> KeptEvidence:
        """Write evidence and its arrays, arrays first, so that a JSON file never names arrays that are not there.

        Raises:
            OutputError: the folder cannot be written.
        """
        if arrays:
            content = _npz_bytes(arrays)
            digest = sha256_of_bytes(content)
            evidence = evidence.model_copy(update={"arrays": ArrayFile(file=f"{digest}.npz", sha256=digest)})
            write_atomically(self.folder / f"{digest}.npz", content)
        document = json_bytes(evidence.model_dump(mode="json"))
        name = sha256_of_bytes(document)
        write_atomically(self.folder / f"{name}.json", document)
        return KeptEvidence(evidence, arrays, name)

    def read(self, sha256: str) -> KeptEvidence:
        """Evidence by its digest, every byte compared, and every byte of the evidence it rests on.

        Raises:
            EvidenceError: missing, or a byte of it changed.
        """
        evidence = self._without_arrays(sha256)
        for below in evidence.rests_on:
            self._compare(below)
        if evidence.arrays is None:
            return KeptEvidence(evidence, {}, sha256)
        path = self.folder / Path(evidence.arrays.file).name
        return KeptEvidence(evidence, _arrays_in(_bytes_of(path, evidence.arrays.sha256), path), sha256)

    def read_bound(self, sha256: str, subject: Subject, measurement: str) -> KeptEvidence:
        """Evidence by its digest that must be this measurement of `subject`.

        Raises:
            EvidenceError: missing, damaged, another measurement, or of another package or profile.
        """
        kept = self.read(sha256)
        if (got := kept.evidence.conditions.measurement) != measurement:
            raise EvidenceError(f"{self.folder / sha256[:16]}….json: is evidence of {got}, expected {measurement}")
        if reason := subject_difference(kept.evidence.conditions.subject, subject, "package"):
            raise EvidenceError(
                f"{self.folder / sha256[:16]}….json: is evidence of another package: {reason}; gate this one"
            )
        return kept

    def find(self, wanted: Conditions) -> tuple[KeptEvidence | None, str]:
        """The newest evidence that serves, or None and why what comes nearest does not.

        Evidence of the same measurement that is bound to something else, or damaged, is a reason, never an answer.
        """
        candidates = sorted(self.folder.glob("[0-9a-f]*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        stale: list[tuple[int, str]] = []
        for path in candidates:
            distance = DAMAGED
            try:
                have = self._without_arrays(path.stem).conditions
                if have.measurement != wanted.measurement:
                    continue
                differences = have.differences(wanted)
                distance = len(differences) if have.subject == wanted.subject else OTHER_SUBJECT
                if not differences:
                    return self.read(path.stem), ""
                stale.append((distance, "; ".join(differences)))
            except EvidenceError as error:
                stale.append((distance, str(error)))
        return None, min(stale, key=lambda each: each[0])[1] if stale else "no evidence yet"

    def discard(self, sha256: str) -> None:
        """Take evidence off the shelf that turned out to speak of something else than it says."""
        (self.folder / f"{sha256}.json").unlink(missing_ok=True)

    def _compare(self, sha256: str) -> None:
        """Compare every byte of evidence and of what it rests on, without reading its arrays."""
        evidence = self._without_arrays(sha256)
        if evidence.arrays is not None:
            _bytes_of(self.folder / Path(evidence.arrays.file).name, evidence.arrays.sha256)
        for below in evidence.rests_on:
            self._compare(below)

    def _without_arrays(self, sha256: str) -> Evidence:
        path = self.folder / f"{sha256}.json"
        document = _bytes_of(path, sha256)
        try:
            return Evidence.model_validate_json(document)
        except ValidationError as error:
            raise EvidenceError(f"{path}: {complaints_of(error)}; measure again") from error


def strings(value: JsonValue) -> list[str]:
    """A value of evidence that is a list of words; nothing where it is none."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _bytes_of(path: Path, expected_sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EvidenceError(f"{path}: evidence cannot be read ({error.strerror}); measure again") from error
    if (got := sha256_of_bytes(content)) != expected_sha256:
        raise EvidenceError(
            f"{path}: evidence has sha256 {got[:16]}…, expected {expected_sha256[:16]}…; it was altered: measure again"
        )
    return content


def _npz_bytes(arrays: ArrayMap) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # any array may stand under any name
    return buffer.getvalue()


def _arrays_in(content: bytes, path: Path) -> ArrayMap:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise EvidenceError(f"{path}: holds no arrays ({error}); measure again") from error
