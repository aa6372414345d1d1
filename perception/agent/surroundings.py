"""What an agent meets: the network, the machine it is on, and the clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from hw_profiles.machine import THIS_MACHINE
from perception.agent.download import Fetcher
from perception.agent.slots import Prepare
from perception.agent.workshop import prepare_in_child


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an agent meets: the network, the machine, the clock, and where engines are tried.

    Attributes:
        fetcher: the network.
        prepare: builds and measures a filled slot.
        machine_root: whose /proc and /sys tell what this machine is.
        now_s: this machine's clock, seconds since 1970.
    """

    fetcher: Fetcher = field(default_factory=Fetcher)
    prepare: Prepare = prepare_in_child
    machine_root: Path = THIS_MACHINE
    now_s: float | None = None

    def clock_s(self) -> int:
        """Seconds since 1970."""
        return int(time.time() if self.now_s is None else self.now_s)

    def boot_id(self) -> str:
        """Another one after every start of the machine."""
        path = self.machine_root / "proc/sys/kernel/random/boot_id"
        return path.read_text().strip() if path.exists() else "unknown"
