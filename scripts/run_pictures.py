"""Make the pictures of a run in docs/images: the screen in the terminal, Rerun's viewer. Wants Rerun and Chromium.

python scripts/run_pictures.py PACKAGE SHADOW RECORDING [--speed X]
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console, RenderableType

from perception.deadline.plan import Settings, plan_of
from perception.deadline.run import Options, Running, run_plan
from perception.deadline.screen import REFRESH_S, Screen
from perception.package import open_package
from perception.record import RunHeader
from perception.sinks.rerun_view import RerunFile
from perception.sources.table import open_source

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
CRASH_AFTER_S = 4.0
SIZE_PX = (1500, 850)


def main() -> None:
    """A run beside a shadow whose engine is killed once: what its screen shows at the end, and what Rerun does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("package", "shadow", "recording"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--speed", type=float, default=1.0)
    arguments = parser.parse_args()
    package, shadow = open_package(arguments.package), open_package(arguments.shadow)
    plan = plan_of(package, shadow=shadow, settings=Settings.of(package.profile))
    screens: list[Screen] = []
    drawn: list[RenderableType] = []
    watched: list[Running] = []
    ended = threading.Event()

    def watch(running: Running) -> None:
        watched.append(running)
        screens.append(Screen(running, f"{package.manifest.name} on {arguments.recording.name}"))
        threading.Timer(CRASH_AFTER_S, lambda: os.kill(running.crew.lanes[0].pid or 0, signal.SIGSEGV)).start()
        threading.Thread(target=look, daemon=True).start()

    def look() -> None:
        while not ended.wait(REFRESH_S):  # rates are those since the look before
            picture = screens[0].draw()
            if watched[0].crew.is_alive:
                drawn.append(picture)

    with tempfile.TemporaryDirectory() as folder, closing(open_source(arguments.recording)) as source:
        recorded = Path(folder) / "run.rrd"
        sink = RerunFile(recorded, RunHeader.of(package, arguments.recording, options={}, cameras=source.cameras))
        run_plan(plan, source, sinks=[sink], options=Options(speed=arguments.speed, force=True, on_open=watch))
        ended.set()
        console = Console(record=True, width=118, file=io.StringIO())
        console.print(drawn[-1])
        page = Path(folder) / "screen.svg"
        console.save_svg(str(page), title="tollgate run")
        _photograph(page.as_uri(), IMAGES / "run_screen.png", size_px=(1460, 470), wait_s=1)
        _photograph_viewer(recorded, IMAGES / "rerun.png")


def _photograph_viewer(recorded: Path, picture: Path) -> None:
    ports = [_free_port(), _free_port()]
    command = [Path(sys.executable).with_name("rerun"), recorded, "--serve-web", "--bind", "127.0.0.1"]
    command += ["--port", str(ports[0]), "--web-viewer-port", str(ports[1])]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        command, **silent, start_new_session=True
    ) as viewer:  # the command starts the viewer and waits
        try:
            time.sleep(8)
            recording = f"rerun%2Bhttp://127.0.0.1:{ports[0]}/proxy"
            page = f"http://127.0.0.1:{ports[1]}/?url={recording}&renderer=webgl"
            _photograph(page, picture, size_px=SIZE_PX, wait_s=30)
        finally:
            os.killpg(viewer.pid, signal.SIGTERM)


def _photograph(page: str, picture: Path, *, size_px: tuple[int, int], wait_s: float) -> None:
    with sync_playwright() as playwright:
        drawing = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", *drawing])
        shown = browser.new_page(viewport={"width": size_px[0], "height": size_px[1]})
        shown.goto(page)
        shown.wait_for_timeout(wait_s * 1000)
        shown.screenshot(path=picture, timeout=120_000)
        browser.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
