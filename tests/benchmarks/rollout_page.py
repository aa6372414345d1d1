"""docs/images/rollout_page.png: the page of a simulated rollout, as Chromium shows it.

python -m tests.benchmarks.rollout_page
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from playwright.sync_api import sync_playwright

from perception.cohort import ReleaseRef
from safety_gates.rollout.decision import Outcome, judge_stage
from safety_gates.rollout.moving import judged
from safety_gates.rollout.page import render
from safety_gates.rollout.rollout import HOUR_NS, Rollout
from safety_gates.rollout.simulation.fleet import FleetModel, Regression, SimulatedFleet, drawn_places
from safety_gates.rollout.stages import load_stages
from tests.benchmarks.rollout_results import IMAGES
from tests.perception.fleet import NOW_NS, new_key
from tests.safety_gates.rollout.field import begun

VEHICLES, SEED = 3_000, 1
COUNTS = {"accepted": 96_412, "malformed": 11, "forged": 2, "skewed": 7, "duplicate": 1_204}
TWO_OF_EIGHT = ".figures figure:not(:nth-child(4n + 1)) { display: none; }"
HEIGHT_PX = 1960


def rolled(folder: Path, regression: Regression) -> Rollout:
    """A rollout on the shipped stages, decided as real ones are, until it ends or has held for 30 looks."""
    key, text = new_key(), load_stages(None)[1]
    names = {"candidate": ReleaseRef(name="detector-orin-4f1c9a", sha256="b" * 64)}
    names["control"] = ReleaseRef(name="detector-orin-9b02d7", sha256="a" * 64)
    rollout = begun(folder, key, stages=text, vehicles=VEHICLES, name="2026-05 front camera", **names)
    places = drawn_places(VEHICLES, rollout.file.holdout, np.random.default_rng(SEED))
    fleet = SimulatedFleet(places, model=FleetModel(), regression=regression, seed=SEED)
    now_ns, looks = NOW_NS, 0
    fleet.begin(rollout.stage)
    while not rollout.ended and looks < 30:
        stage = rollout.stage
        reports = fleet.drive(stage.look_every_h)
        now_ns, looks = now_ns + int(stage.look_every_h * HOUR_NS), looks + 1
        judgement = judge_stage(rollout.file, stage, reports, at=rollout.next_look(now_ns))
        rollout = judged(rollout, judgement, COUNTS, key, now_ns=now_ns)
        if judgement.outcome is Outcome.ADVANCE and not rollout.ended:
            fleet.begin(rollout.stage)
    return rollout


def picture(page: bytes, output: Path) -> None:
    """The page's upper part, with two of the eight criteria."""
    with TemporaryDirectory() as folder, sync_playwright() as play:
        path = Path(folder) / "rollout.html"
        path.write_bytes(page)
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1100, "height": HEIGHT_PX}, color_scheme="light")
        tab.goto(path.as_uri())
        tab.add_style_tag(content=TWO_OF_EIGHT)
        tab.screenshot(path=output)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=IMAGES / "rollout_page.png", help="where it goes")
    arguments = parser.parse_args()
    with TemporaryDirectory() as made:
        finished = rolled(Path(made) / "rollout", Regression(misses=1.5))
        document = render(finished, COUNTS, finished.log.last.at_ns + 12 * HOUR_NS)
    picture(document, arguments.output)
