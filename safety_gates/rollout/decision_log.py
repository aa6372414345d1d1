"""The log of a rollout: one signed file an entry, each naming the one before by digest. It is the rollout's only state.

`entries/000003.json` is a DSSE envelope signed by an operator. An entry is written whole under a name that must not
exist, so of two operators at once one wins, and the other is told. Altered, missing, swapped or foreign entries are
refused wherever the log is read. The first entry names the operators' public keys; who signs later must be one of
them, and a writer refuses a log that does not name its own key, so a log replaced as a whole is refused too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, UnverifiedSignatureError
from securesystemslib.signer import Signer, SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.cohort import RolloutPlan, Sha256
from perception.errors import RolloutError, VerificationError
from perception.files import json_bytes, sha256_of_bytes, write_new

PAYLOAD_TYPE = "application/vnd.tollgate.rollout-entry+json"
FOLDER = "entries"
NOTHING_BEFORE = "0" * 64

Action = Literal["start", "look", "advance", "hold", "resume", "rollback", "complete"]


class Entry(BaseModel):
    """One decision, with what it rests on.

    Attributes:
        number: from 0, without gaps.
        previous: digest of the file of the entry before.
        at_ns: clock of the operator's machine, nanoseconds since 1970 UTC.
        action: "look" where a look decided to hold.
        by: "auto", or "operator" for a person's command.
        plan: what vehicles follow from here on.
        stage_since_ns: when the current stage began.
        paused: a person asked the automatic mode not to advance.
        judgement: the figures of the look it rests on, None for a person's command without one.
        stages: the stage file's text, in the first entry only.
        vehicles: the size of the fleet that shares are reckoned for, in the first entry only.
        operators: public keys by key id, in the first entry only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["tollgate-rollout-entry/1"] = "tollgate-rollout-entry/1"
    number: int = Field(ge=0)
    previous: Sha256
    at_ns: int = Field(ge=0)
    action: Action
    by: Literal["auto", "operator"]
    reason: str
    plan: RolloutPlan
    stage_since_ns: int = Field(ge=0)
    paused: bool = False
    judgement: dict[str, JsonValue] | None = None
    telemetry: dict[str, int] = {}
    stages: str | None = None
    vehicles: int | None = Field(default=None, ge=1)
    operators: dict[str, dict[str, JsonValue]] | None = None


@dataclass(frozen=True, slots=True)
class DecisionLog:
    """A log whose every entry verified.

    Attributes:
        folder: of the rollout.
        entries: in order; at least one.
        signers: key id under each entry.
        head: digest of the last entry's file.
    """

    folder: Path
    entries: tuple[Entry, ...]
    signers: tuple[str, ...]
    head: str

    @property
    def last(self) -> Entry:
        """The newest entry: what holds now."""
        return self.entries[-1]

    def append(self, entry: Entry, signer: Signer) -> DecisionLog:
        """Write the next entry, unless somebody was faster.

        Raises:
            RolloutError: somebody else wrote this entry meanwhile; the log is theirs, nothing of ours was written.
            VerificationError: the signer is no operator of this rollout.
            OutputError: the disk is full; the log is as before.
        """
        self.admit(signer)
        content = signed_entry(entry, signer)
        try:
            write_new(entry_path(self.folder, entry.number), content)
        except FileExistsError as error:
            winner = read_log(self.folder).entries[entry.number]
            raise RolloutError(
                f"somebody was faster: entry {entry.number} is {winner.action} ({winner.reason}); "
                f"your {entry.action} was not carried out, look at it with: tollgate rollout status {self.folder}"
            ) from error
        return DecisionLog(
            self.folder,
            (*self.entries, entry),
            (*self.signers, signer.public_key.keyid),
            sha256_of_bytes(content),
        )

    def admit(self, signer: Signer) -> None:
        """Let an operator of this rollout pass.

        Raises:
            VerificationError: it is none, or the key under that id is another one.
        """
        known = (self.entries[0].operators or {}).get(signer.public_key.keyid)
        if known != signer.public_key.to_dict():
            raise VerificationError(
                f"{self.folder}: key {signer.public_key.keyid[:16]}… is no operator of this rollout; "
                "use a key that was given at: tollgate rollout start"
            )


def entry_path(folder: Path, number: int) -> Path:
    """Where an entry stands."""
    return folder / FOLDER / f"{number:06d}.json"


def signed_entry(entry: Entry, signer: Signer) -> bytes:
    """The file of an entry."""
    envelope = Envelope(json_bytes(entry.model_dump(mode="json")), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json_bytes(envelope.to_dict())


def read_log(folder: Path) -> DecisionLog:
    """Read and verify a log.

    Raises:
        RolloutError: there is none.
        VerificationError: an entry is missing, altered, out of order, or signed by no operator.
    """
    paths = sorted((folder / FOLDER).glob("*.json"))
    if not paths:
        raise RolloutError(f"{folder}: holds no rollout; begin one with: tollgate rollout start")
    entries: list[Entry] = []
    signers: list[str] = []
    previous, operators = NOTHING_BEFORE, {}
    for number, path in enumerate(paths):
        if path != entry_path(folder, number):
            raise VerificationError(f"{entry_path(folder, number)}: is missing; restore the log from a copy")
        content = _content(path)
        envelope = _envelope(content, path)
        entry = _entry(envelope, path)
        if number == 0:
            operators = _operators(entry, path)
        signers.append(_verified_signer(envelope, operators, path))
        if (entry.number, entry.previous) != (number, previous):
            raise VerificationError(f"{path}: does not follow the entry before it; restore the log from a copy")
        entries.append(entry)
        previous = sha256_of_bytes(content)
    return DecisionLog(folder, tuple(entries), tuple(signers), previous)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RolloutError(f"{path}: cannot be read ({error.strerror}); make the rollout's folder readable") from error


def _envelope(content: bytes, path: Path) -> Envelope:
    try:
        envelope = Envelope.from_dict(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise VerificationError(f"{path}: no signed entry; restore the log from a copy") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise VerificationError(f"{path}: got payload {envelope.payload_type!r:.80}, expected {PAYLOAD_TYPE!r}")
    return envelope


def _entry(envelope: Envelope, path: Path) -> Entry:
    try:
        return Entry.model_validate_json(envelope.payload)
    except ValidationError as error:
        raise VerificationError(f"{path}: no rollout entry: {complaints_of(error)}") from error


def _operators(first: Entry, path: Path) -> dict[str, SSlibKey]:
    try:
        return {key_id: _key(key_id, fields) for key_id, fields in (first.operators or {}).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{path}: names operators without a readable key") from error


def _key(key_id: str, fields: dict[str, Any]) -> SSlibKey:
    return SSlibKey.from_dict(key_id, dict(fields))


def _verified_signer(envelope: Envelope, operators: dict[str, SSlibKey], path: Path) -> str:
    try:
        return next(iter(envelope.verify(list(operators.values()), threshold=1).values())).keyid  # type: ignore[no-any-return]
    except (UnverifiedSignatureError, ValueError) as error:
        raise VerificationError(f"{path}: altered, or signed by no operator; restore the log from a copy") from error
