"""Asking the kernel for regular service, and saying what it granted. Nothing here needs root; what does is refused."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30
SWITCH_S = 0.00002
TIMER_SLACK_NS = 1


@dataclass(frozen=True, slots=True)
class RealtimeWish:
    """What a process asks for.

    Attributes:
        cpus: run on these only; empty leaves the choice to the kernel.
        fifo_priority: SCHED_FIFO with this priority (1..99); None stays with the ordinary scheduler.
        lock_memory: keep every page in memory.
        collect_garbage: leave Python's cyclic collector on; off, reference counting alone frees memory.
        spin: an engine that waits for work keeps its core busy instead of sleeping: no wake-up, at the cost of a core.
        idle: run only when nobody else wants to (a shadow).
    """

    cpus: tuple[int, ...] = ()
    fifo_priority: int | None = None
    lock_memory: bool = False
    collect_garbage: bool = False
    spin: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What became of one wish.

    Attributes:
        setting: its name.
        wanted: what was asked for.
        granted: whether it was given.
        note: why it was refused, and what would help.
    """

    setting: str
    wanted: str
    granted: bool
    note: str = ""

    def __str__(self) -> str:
        return f"{self.setting} {self.wanted}: " + ("granted" if self.granted else f"refused ({self.note})")


def ask(wish: RealtimeWish) -> tuple[Grant, ...]:
    """Ask for everything in the wish, for the whole process; a refusal stops nothing."""
    wanted: list[tuple[str, str, Callable[[], None], str]] = []
    if wish.cpus:
        names = ",".join(map(str, wish.cpus))
        wanted.append(("affinity", names, lambda: os.sched_setaffinity(0, wish.cpus), "name CPUs this process may use"))
    if wish.idle:
        wanted.append(("scheduler", "idle", _be_idle, "the kernel has no SCHED_IDLE"))
    if wish.fifo_priority is not None:
        priority = wish.fifo_priority
        wanted.append(
            ("scheduler", f"fifo {priority}", lambda: _be_fifo(priority), "grant CAP_SYS_NICE or LimitRTPRIO")
        )
    if wish.lock_memory:
        wanted.append(("memory", "locked", _lock_memory, "grant CAP_IPC_LOCK or raise LimitMEMLOCK"))
    return tuple(_granted(*each) for each in wanted)


def spinning() -> Grant:
    """Whether this process may spin: alone on one core it would keep everybody else from giving it work."""
    cores = len(os.sched_getaffinity(0))
    note = "" if cores > 1 else "one core only; give it two or more in cpus"
    return Grant("waiting", "spinning", granted=cores > 1, note=note)


def still_the_collector() -> Grant:
    """Freeze what lives and stop Python's cyclic collector; to be called when everything is open."""
    gc.collect()
    gc.freeze()
    gc.disable()
    return Grant("garbage collector", "frozen and off", granted=True)


def wake_the_collector() -> None:
    """The inverse, for when the loop is over."""
    gc.enable()
    gc.unfreeze()


@contextmanager
def threads_switching_quickly() -> Iterator[None]:
    """Let no thread of this process hold the interpreter longer than 0.02 ms while another waits for it.

    Timed waits of this thread, and of those it starts, end when they are due: Linux lets them oversleep by 50 µs.
    """
    usual_s, prctl = sys.getswitchinterval(), ctypes.CDLL(None).prctl
    usual_slack_ns = prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    sys.setswitchinterval(SWITCH_S)
    prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(TIMER_SLACK_NS), 0, 0, 0)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)
        prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(usual_slack_ns), 0, 0, 0)


def _granted(setting: str, wanted: str, ask_for_it: Callable[[], None], remedy: str) -> Grant:
    try:
        ask_for_it()
    except OSError as error:
        return Grant(setting, wanted, granted=False, note=f"{error.strerror}; {remedy}")
    return Grant(setting, wanted, granted=True)


def _be_idle() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _be_fifo(priority: int) -> None:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))


def _lock_memory() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
