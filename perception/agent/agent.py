"""One pass of the agent, from what the repository wants to what this vehicle runs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from perception.agent import health
from perception.agent.incoming import DOWNLOADS, download, downloads_of, refuse_misfits
from perception.agent.index import INDEX, ReleaseIndex, parse_document, target_name
from perception.agent.journal import Failure, Journal, SlotName, SlotRecord, Trial, event, read_journal, write_journal
from perception.agent.slots import SLOTS, SmokeFailure, fill, follow, package_in, tidy
from perception.agent.surroundings import Surroundings
from perception.agent.telemetry import Reporter
from perception.agent.trust import Origin, Repository, refreshed
from perception.agent.wanted import Named, Vehicle, Wanted, wanted_release
from perception.errors import RolloutError, TollgateError, UpdateError, VerificationError
from perception.files import locked, sha256_of_bytes

TRUST, LOCK = "trust", "lock"
ATTEMPTS = 3
DAY_S = 24 * 3600


class Outcome(str, Enum):
    """What one pass came to."""

    NOTHING_OFFERED = "NOTHING_OFFERED"
    UP_TO_DATE = "UP_TO_DATE"
    ON_TRIAL = "ON_TRIAL"
    SWITCHED = "SWITCHED"
    COMMITTED = "COMMITTED"
    SHADOWING = "SHADOWING"
    FELL_BACK = "FELL_BACK"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a pass, of which release, and why."""

    outcome: Outcome
    release: str = ""
    reason: str = ""


class Agent:
    """Keeps one vehicle's folder as the signed metadata wants it."""

    def __init__(self, state: Path, origin: Origin, vehicle: Vehicle, surroundings: Surroundings | None = None) -> None:
        self._state = state
        self._origin = origin
        self._vehicle = vehicle
        self._around = surroundings or Surroundings()

    def update(self) -> Report:
        """One pass; safe to end at any instant and to begin again.

        Raises:
            VerificationError: what the repository shows is not to be believed; nothing changed.
            PreflightError: the release is for another machine; nothing changed.
            UpdateError: the repository cannot be reached; nothing changed. Or this vehicle's key or counter of records
                is damaged: the pass was made all the same, since what tells of drives must not keep a rollback away.
            OutputError: the disk is full; nothing changed.
        """
        busy = UpdateError(f"{self._state}: another agent is at work on this vehicle; wait until it is done")
        with locked(self._state / LOCK, busy=busy):
            tidy(self._state)
            journal = read_journal(self._state)
            follow(self._state, journal)
            health.settle(self._state / health.HEALTH)
            damaged = self._collected()
            report = self._judge(journal) or self._followed()
            if damaged is not None:
                raise damaged
            return report

    def _collected(self) -> TollgateError | None:
        """Make records of the drives that ended; what is damaged that they need."""
        try:
            Reporter(self._state, self._vehicle).collect()
        except (UpdateError, RolloutError) as error:
            return error
        return None

    def _followed(self) -> Report:
        """Ask the repository, and do what it wants."""
        repository = self._refreshed(read_journal(self._state))
        wanted = wanted_release(repository, self._vehicle, self._downloads())
        if wanted is None:
            return Report(Outcome.NOTHING_OFFERED, reason=f"for profile {self._vehicle.profile}")
        return self._bring(repository, wanted)

    def _judge(self, journal: Journal) -> Report | None:
        """End the commit window, if it can be ended; None where there is nothing to end."""
        running, trial = journal.running, journal.trial
        if running is None or trial is None or journal.active is None:
            health.forget(self._state / health.HEALTH)
            return None
        if (boot := self._around.boot_id()) not in trial.boots:
            trial = trial.model_copy(update={"boots": (*trial.boots, boot)})
            write_journal(self._state, journal.model_copy(update={"trial": trial}))
        verdict, why = self._verdict(running, trial)
        if verdict is health.Verdict.WAIT:
            return None
        if verdict is health.Verdict.COMMIT:
            kept = running.model_copy(update={"committed": True})
            slots = {**journal.slots, journal.active: kept}
            self._write(
                journal.after(event("committed", running.release, why, slot=journal.active), slots=slots, trial=None)
            )
            outcome = Outcome.COMMITTED
        else:
            failure = Failure(release=running.release, reason=why, attempts=1, final=True)
            failures = {**journal.failures, running.index_sha256: failure}
            self._return(journal, trial, what="fell_back", why=why, failures=failures)
            outcome = Outcome.FELL_BACK
        health.forget(self._state / health.HEALTH)
        return Report(outcome, running.release, why)

    def _verdict(self, running: SlotRecord, trial: Trial) -> tuple[health.Verdict, str]:
        known = health.health_of(self._state / health.HEALTH, running.package_sha256)
        return known.verdict(running.commit, boots=len(trial.boots))

    def _return(self, journal: Journal, trial: Trial, *, what: str, why: str, **changes: object) -> Journal:
        """Point back to the slot before the trial, or to none where that is no longer whole."""
        release = journal.running.release if journal.running else ""
        back = trial.fall_back if trial.fall_back and self._whole(journal, trial.fall_back) else None
        return self._write(
            journal.after(event(what, release, why, slot=journal.active), active=back, trial=None, **changes)
        )

    def _refreshed(self, journal: Journal) -> Repository:
        now_s = max(self._around.clock_s(), journal.latest_s)
        repository = refreshed(self._state / TRUST, self._origin, fetcher=self._around.fetcher, now_s=now_s)
        if now_s - journal.latest_s > DAY_S:
            self._write(journal.model_copy(update={"latest_s": now_s}))
        return repository

    def _bring(self, repository: Repository, wanted: Wanted) -> Report:
        """Let the vehicle do what is wanted; a shadow comes only after what drives stands."""
        report = self._drive(repository, wanted.drives)
        journal = read_journal(self._state)
        if journal.place != wanted.place:
            self._write(journal.model_copy(update={"place": wanted.place}))
        if report.outcome is not Outcome.UP_TO_DATE:
            return report
        if wanted.shadow is not None:
            return self._accompany(repository, wanted.shadow)
        journal = read_journal(self._state)
        if journal.shadow is not None:
            self._write(journal.model_copy(update={"shadow": None}))
        return report

    def _drive(self, repository: Repository, wish: Named) -> Report:
        """Run a release: nothing to do, return to a kept slot, or fill one and try it."""
        journal = read_journal(self._state)
        index, content = self._index(repository, wish)
        sha256 = sha256_of_bytes(content)
        if journal.running is not None and journal.running.index_sha256 == sha256:
            if journal.trial is None:
                return Report(Outcome.UP_TO_DATE, index.name)
            return Report(Outcome.ON_TRIAL, index.name, self._verdict(journal.running, journal.trial)[1])
        if journal.trial is not None:
            journal = self._return(journal, journal.trial, what="withdrawn", why=f"{index.name} is wanted instead")
            if journal.running is not None and journal.running.index_sha256 == sha256:
                return Report(Outcome.FELL_BACK, index.name, "the release on trial was withdrawn")
        slot = self._slot_with(repository, index, content)
        if slot is None:
            return Report(Outcome.REFUSED, index.name, read_journal(self._state).failures[sha256].reason)
        return self._switch(read_journal(self._state), slot)

    def _accompany(self, repository: Repository, wish: Named) -> Report:
        """Put a release into the slot that is not in use, for whoever runs it beside the one that drives."""
        index, content = self._index(repository, wish)
        slot = self._slot_with(repository, index, content)
        journal = read_journal(self._state)
        if slot is None:
            return Report(Outcome.REFUSED, index.name, journal.failures[sha256_of_bytes(content)].reason)
        if journal.shadow != slot:
            self._write(journal.after(event("shadowed", index.name, slot=slot), shadow=slot))
        return Report(Outcome.SHADOWING, index.name)

    def _index(self, repository: Repository, wish: Named) -> tuple[ReleaseIndex, bytes]:
        name = target_name(wish.name, INDEX)
        content = repository.document(name, self._downloads())
        if content is None:
            raise VerificationError(f"release {wish.name}: is wanted, but not in the repository; publish it again")
        index = parse_document(ReleaseIndex, content, where=name)
        if wish.package_sha256 not in (None, index.package_sha256):
            raise VerificationError(
                f"release {wish.name}: the rollout speaks of package {str(wish.package_sha256)[:16]}…, the repository "
                f"holds {index.package_sha256[:16]}…; nothing on this vehicle changed"
            )
        return index, content

    def _slot_with(self, repository: Repository, index: ReleaseIndex, content: bytes) -> SlotName | None:
        """The slot that holds a release, filled now where none does; None where the release failed on this vehicle."""
        journal = read_journal(self._state)
        sha256 = sha256_of_bytes(content)
        if (failure := journal.failures.get(sha256)) is not None and failure.final:
            return None
        slot = journal.slot_of(sha256)
        if slot is not None and self._whole(journal, slot):
            return slot
        refuse_misfits(
            repository, index, self._vehicle.profile, machine_root=self._around.machine_root, state=self._state
        )
        return self._filled(repository, index, content)

    def _filled(self, repository: Repository, index: ReleaseIndex, content: bytes) -> SlotName | None:
        """Download, then fill the slot that is not in use; None where the smoke run failed.

        What the slot held stays until the new release passed. A death between the slot's renaming and the journal's
        leaves a record that is not of these bytes: whoever uses a slot compares them, and so it is filled again.
        """
        incoming = download(repository, index, content, state=self._state)
        journal = read_journal(self._state)
        slot, sha256 = journal.inactive, sha256_of_bytes(content)
        if journal.shadow == slot:
            journal = self._write(journal.model_copy(update={"shadow": None}))
        try:
            record = fill(self._state / SLOTS / slot, incoming, prepare=self._around.prepare)
        except SmokeFailure as error:
            attempts = journal.failures[sha256].attempts + 1 if sha256 in journal.failures else 1
            failure = Failure(release=index.name, reason=str(error), attempts=attempts, final=attempts >= ATTEMPTS)
            failures = {**journal.failures, sha256: failure}
            self._write(journal.after(event("refused", index.name, str(error), slot=slot), failures=failures))
            return None
        slots = {**journal.slots, slot: record}
        self._write(journal.after(event("filled", index.name, slot=slot), slots=slots))
        shutil.rmtree(self._state / DOWNLOADS, ignore_errors=True)
        return slot

    def _switch(self, journal: Journal, slot: SlotName) -> Report:
        """One rename makes it the slot in use; a release that was kept before needs no commit window."""
        record = journal.slots[slot]
        trial = None if record.committed else Trial(fall_back=journal.active, boots=(self._around.boot_id(),))
        health.forget(self._state / health.HEALTH)
        shadow = None if journal.shadow == slot else journal.shadow
        self._write(
            journal.after(event("switched", record.release, slot=slot), active=slot, trial=trial, shadow=shadow)
        )
        return Report(Outcome.SWITCHED, record.release, "" if trial is None else "the commit window is open")

    def _whole(self, journal: Journal, slot: SlotName) -> bool:
        """Whether a complete slot still holds the bytes that were put there."""
        try:
            package_in(self._state, slot, journal.slots[slot])
        except (KeyError, TollgateError):
            return False
        return True

    def _write(self, journal: Journal) -> Journal:
        """The one way in which anything changes: the journal, then the links after it."""
        write_journal(self._state, journal)
        follow(self._state, journal)
        return journal

    def _downloads(self) -> Path:
        return downloads_of(self._state)
