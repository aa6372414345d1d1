"""Everything the agent knows, in one file that is only ever replaced whole.

The journal alone says which slot is in use; the link `active` follows it. So each step of an update is one rename, and
there is no instant at which a dying process leaves two truths.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hw_profiles.yaml_files import complaints_of
from perception.agent.index import CommitRule
from perception.cohort import Role
from perception.errors import UpdateError
from perception.files import json_bytes, write_atomically

JOURNAL = "journal.json"
MOST_EVENTS = 100

SlotName = Literal["a", "b"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SlotRecord(_Strict):
    """What a complete slot holds.

    Attributes:
        release: the release's name in the repository.
        index_sha256: of its index; names the release beyond doubt.
        package_sha256: of the package that runs: the released one, or the one that was built here.
        released_sha256: of the released package.
        runs: that package's folder within the slot.
        commit: when it is kept.
        committed: it was kept once; returning to it needs no commit window.
    """

    release: str
    index_sha256: str
    package_sha256: str
    released_sha256: str
    runs: Literal["release/package", "package"]
    commit: CommitRule
    committed: bool = False


class Trial(_Strict):
    """The commit window: the slot in use has not proved itself yet.

    Attributes:
        fall_back: the slot to return to; None where there was none before.
        boots: ids of the boots in which the agent saw this trial.
    """

    fall_back: SlotName | None
    boots: tuple[str, ...]


class Place(_Strict):
    """The vehicle's place in a rollout, for its records."""

    rollout: str
    role: Role


class Failure(_Strict):
    """A release that this vehicle tried and does not run."""

    release: str
    reason: str
    attempts: int
    final: bool


class Event(_Strict):
    """What happened to a slot, for telemetry."""

    at_s: int
    slot: SlotName | None
    what: Literal["filled", "switched", "committed", "fell_back", "withdrawn", "refused", "shadowed"]
    release: str
    reason: str = ""


class Journal(_Strict):
    """The state of a vehicle.

    Attributes:
        active: the slot in use; None before the first release.
        slots: what the complete slots hold; a slot that is being filled is not among them.
        trial: the commit window of the slot in use; None when it was committed.
        place: in the rollout, as of the last pass.
        shadow: a slot that runs beside the one in use, without a say.
        failures: by index_sha256, what is not tried again.
        latest_s: no refresh that succeeded was later than this; time is never taken to be earlier.
        events: the last hundred.
    """

    format: Literal["tollgate-journal/1"] = "tollgate-journal/1"
    active: SlotName | None = None
    slots: dict[SlotName, SlotRecord] = Field(default_factory=dict)
    trial: Trial | None = None
    place: Place | None = None
    shadow: SlotName | None = None
    failures: dict[str, Failure] = Field(default_factory=dict)
    latest_s: int = 0
    events: tuple[Event, ...] = ()

    @property
    def inactive(self) -> SlotName:
        """The slot that may be filled."""
        return "b" if self.active == "a" else "a"

    @property
    def running(self) -> SlotRecord | None:
        """What the slot in use holds."""
        return None if self.active is None else self.slots[self.active]

    def slot_of(self, index_sha256: str) -> SlotName | None:
        """The complete slot that holds a release."""
        return next((name for name, record in self.slots.items() if record.index_sha256 == index_sha256), None)

    def after(self, event: Event, **changes: object) -> Journal:
        """The journal with changes and one more event."""
        events = (*self.events, event)[-MOST_EVENTS:]
        return self.model_copy(update={**changes, "events": events})


def read_journal(folder: Path) -> Journal:
    """The journal of a vehicle's folder; an empty one where there is none yet.

    Raises:
        UpdateError: it cannot be read.
    """
    path = folder / JOURNAL
    try:
        return Journal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Journal()
    except OSError as error:
        raise UpdateError(f"{path}: cannot be read ({error.strerror}); check the disk") from error
    except ValidationError as error:
        raise UpdateError(
            f"{path}: {complaints_of(error)}; the disk or somebody's editor damaged it: move it away, and the vehicle "
            "installs the current release anew"
        ) from error


def write_journal(folder: Path, journal: Journal) -> None:
    """Replace the journal, flushed to disk.

    Raises:
        OutputError: the disk is full; the earlier journal stands.
    """
    write_atomically(folder / JOURNAL, json_bytes(journal.model_dump(mode="json")))


def event(what: str, release: str, reason: str = "", *, slot: SlotName | None) -> Event:
    """An event of now."""
    fields = {"at_s": int(time.time()), "slot": slot, "what": what, "release": release, "reason": reason}
    return Event.model_validate(fields)
