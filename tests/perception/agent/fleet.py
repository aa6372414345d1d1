"""A small world for the agent's tests: keys, a repository, a server on the loopback, and a vehicle's folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext

from perception.agent.agent import Agent, Outcome, Report
from perception.agent.download import Fetcher, Pace
from perception.agent.health import HEALTH, DriveReport, write_report
from perception.agent.index import CommitRule, ReleaseIndex, Tolerance
from perception.agent.journal import read_journal
from perception.agent.slots import active_package
from perception.agent.surroundings import Surroundings
from perception.agent.trust import Origin
from perception.agent.wanted import Vehicle
from perception.agent.workshop import prepare_here
from safety_gates.keys import read_signer
from safety_gates.publishing import releases
from safety_gates.publishing.ceremony import found
from safety_gates.publishing.keyring import Keyring, create_keyring, read_keyring
from safety_gates.publishing.repository import METADATA, State, read_state
from safety_gates.publishing.signing import utc_now
from tests.conftest import PASSPHRASE
from tests.perception.builders import frames_of
from tests.perception.test_release_client import Factory

PROFILE = "x86_cpu"
TERMS = releases.Terms(
    Tolerance(relative_error=0.01, disagreement=0.05, latency_p90_ms=10_000), CommitRule(frames=10, max_late=0.1)
)
HASTY = Pace(connect_s=2, silence_s=2, window_s=0.5, slowest_bytes_per_s=4096)
NOT_WHAT_RUNS = ("trust", "downloads", "lock", "metrics.prom", "spool")  # what may move without the vehicle changing


class Works:
    """The owner of the fleet: signs, publishes, offers; its clock can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.keyring: Keyring = read_keyring(folder / "keys")
        self.factory = Factory(folder)
        self.factory.signer = read_signer(folder / "keys" / "signer.pem")
        self.root = (self.repository / METADATA / "1.root.json").read_bytes()

    @classmethod
    def founded(cls, folder: Path) -> Works:
        """New keys and an empty repository."""
        keyring = create_keyring(folder / "keys", PASSPHRASE, root_keys=3)
        found(folder / "repository", keyring, threshold=2)
        return cls(folder)

    def publish(self, name: str, *, service_ms: float = 0.0, offer: bool = True, **terms: object) -> ReleaseIndex:
        """A release of the null engine; another `service_ms` makes it another one."""
        folder = self.factory.release(name, service_ms=service_ms)
        return self.publish_folder(folder, offer=offer, **terms)

    def publish_folder(self, folder: Path, *, offer: bool = True, **terms: object) -> ReleaseIndex:
        """A release that lies in a folder."""
        index = releases.publish(
            self.repository, self.keyring, folder, frames=frames_of("front", 3), terms=replace(TERMS, **terms)
        )
        if offer:
            self.offer(index)
        return index

    def offer(self, index: ReleaseIndex, *, days_ago: float = 0.0) -> None:
        """Let vehicles run it."""
        releases.offer(self.repository, self.keyring, index.name, now=ago(days_ago))

    @property
    def state(self) -> State:
        """The repository's metadata."""
        return read_state(self.repository)


def ago(days: float) -> Callable[[], datetime]:
    """A clock that runs behind."""
    return lambda: utc_now() - timedelta(days=days)


class Road:
    """A vehicle that updates from a URL."""

    def __init__(self, state: Path, works: Works, url: str, **around: object) -> None:
        self.state = state
        self.works = works
        self.origin = Origin(url, works.root)
        self.vehicle = Vehicle("V1", PROFILE)
        self.around = Surroundings(fetcher=Fetcher(HASTY), prepare=prepare_here, **around)

    def update(self, **around: object) -> Report:
        """One pass of the agent."""
        return Agent(self.state, self.origin, self.vehicle, replace(self.around, **around)).update()

    def drive(self, *, frames: int = 10, late: int = 0, faults: tuple[str, ...] = ()) -> None:
        """A drive with what runs, as `tollgate run --agent` reports it."""
        report = DriveReport(
            package_sha256=self.runs, started_ns=1, frames=frames, late=late, faults=faults, ended="clean"
        )
        number = len(list((self.state / HEALTH).glob("*.json")))
        write_report(self.state / HEALTH / f"{number}.json", report)

    def commit(self) -> None:
        """Update, drive, commit."""
        assert self.update().outcome is Outcome.SWITCHED
        self.drive()
        assert self.update().outcome is Outcome.COMMITTED

    @property
    def runs(self) -> str:
        """What the link leads to, every byte compared; the journal must say the same."""
        package = active_package(self.state)
        assert (self.state / "active").resolve() == package.folder.resolve()
        return package.sha256

    @property
    def release(self) -> str:
        """Name of the release in use."""
        running = read_journal(self.state).running
        return "" if running is None else running.release

    def snapshot(self) -> dict[str, bytes]:
        """Everything that makes up what the vehicle runs: slots, links, journal, health."""
        found: dict[str, bytes] = {}
        for path in sorted(self.state.rglob("*")):
            name = path.relative_to(self.state)
            if name.parts[0] in NOT_WHAT_RUNS:
                continue
            if path.is_symlink():
                found[str(name)] = str(path.readlink()).encode()
            elif path.is_file():
                found[str(name)] = path.read_bytes()
        return found


class Quiet(SimpleHTTPRequestHandler):
    """A static file server that says nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else 40 ms a file, for headers and body are written apart

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def served(
    folder: Path, handler: type[SimpleHTTPRequestHandler] = Quiet, *, tls: SSLContext | None = None
) -> Iterator[str]:
    """Serve a folder on the loopback, over TLS where a context is given; lends the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
