"""The verb from the command line, its page in a real browser, and its metrics."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from perception.cli import main
from perception.telemetry_record import Counted, Reference
from safety_gates.keys import read_signer
from safety_gates.rollout.decision import Look, judge_stage
from safety_gates.rollout.metrics import prometheus
from safety_gates.rollout.moving import command, judged
from safety_gates.rollout.page import render
from safety_gates.rollout.rollout import HOUR_NS, open_rollout
from tests.perception.agent.fleet import Works
from tests.perception.fleet import NOW_NS, new_key
from tests.safety_gates.rollout.field import DAY_NS, STAGES, Cars, begun
from tests.safety_gates.rollout.test_decision import table
from tests.safety_gates.rollout.test_rollout import looked
from tests.safety_gates.test_report_in_browser import PHONE, opened

CANDIDATE, CONTROL = f"detector 2={'b' * 64}", f"detector 1={'a' * 64}"


@pytest.fixture
def pem(tmp_path):
    path = tmp_path / "operator.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def started(tmp_path, pem, capsys):
    (tmp_path / "stages.yaml").write_text(STAGES)
    folder = str(tmp_path / "out")
    words = ["--name", "november", "--candidate", CANDIDATE, "--control", CONTROL, "--key", pem]
    assert main(["rollout", "start", folder, *words, "--stages", str(tmp_path / "stages.yaml")]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder, key = tmp_path_factory.mktemp("page"), new_key()
    rollout = begun(folder / "rollout", key)
    for day in (0.4, 0.8, 1.2):
        rollout = looked(rollout, key, day, compared=1000.0, disagreed=20.0)
    rollout = looked(rollout, key, 2.2, misses=3.0)
    path = folder / "rollout.html"
    path.write_bytes(render(rollout, {"accepted": 1234, "forged": 5}, rollout.log.last.at_ns))
    return path


class TestVerb:
    def test_a_look_is_not_taken_before_it_is_due(self, started, pem, capsys):
        assert main(["rollout", "auto", started, "--key", pem]) == 3
        assert "the next look is due in 24.0 h; nothing was decided" in capsys.readouterr().out
        assert len(open_rollout(Path(started)).log.entries) == 1

    def test_people_advance_hold_and_roll_back_with_their_reasons(self, started, pem, capsys):
        reason = ["--reason", "seen at the depot", "--key", pem]
        assert main(["rollout", "advance", started, "--from", "shadow", *reason]) == 0
        assert main(["rollout", "hold", started, *reason]) == 0
        assert main(["rollout", "hold", started, "--lift", *reason]) == 0
        assert main(["rollout", "rollback", started, *reason]) == 0
        capsys.readouterr()
        assert main(["rollout", "status", started, "--json"]) == 0
        standing = json.loads(capsys.readouterr().out)
        assert (standing["state"], standing["action"], standing["reason"]) == (
            "rolled_back",
            "rollback",
            "seen at the depot",
        )
        plan = json.loads((Path(started) / "rollout.json").read_text())
        assert (plan["state"], plan["serial"]) == ("rolled_back", 2)

    def test_a_second_advance_is_told_what_the_first_did(self, started, pem, capsys):
        words = ["rollout", "advance", started, "--from", "shadow", "--reason", "good", "--key", pem]
        assert main(words) == 0
        assert main(words) == 2
        assert "is in stage '30 %', expected 'shadow'" in capsys.readouterr().err

    def test_ingest_counts_and_a_late_rollout_looks_and_decides(self, tmp_path, pem, capsys):
        signer = read_signer(Path(pem))
        began_ns = time.time_ns() - 2 * DAY_NS
        rollout = begun(tmp_path / "late", signer, began_ns=began_ns)
        cars = Cars(tmp_path, 80)
        cars.usual = dict.fromkeys(cars.usual, 1e-3)  # alike: shown harmless whoever the salt draws
        cars.drive(rollout, from_ns=began_ns + HOUR_NS)
        words = [
            "rollout",
            "ingest",
            str(rollout.log.folder),
            str(cars.uploads),
            "--fleet",
            str(cars.fleet_file),
            "--json",
        ]
        assert main(words) == 0
        assert json.loads(capsys.readouterr().out)["accepted"] == 400
        assert main(["rollout", "auto", str(rollout.log.folder), "--key", pem]) == 0
        assert "advance: soaked, and all 5 criteria" in capsys.readouterr().out.replace("\n", " ")

    @pytest.mark.parametrize(
        ("change", "complaint"),
        [(("detector 2=xyz", CONTROL), "expected NAME=SHA256"), ((CONTROL, CONTROL), "is the control release")],
    )
    def test_releases_that_cannot_be_are_refused_and_nothing_is_made(self, tmp_path, pem, capsys, change, complaint):
        (tmp_path / "stages.yaml").write_text(STAGES)
        words = ["--name", "n", "--candidate", change[0], "--control", change[1], "--key", pem]
        words += ["--stages", str(tmp_path / "stages.yaml")]
        assert main(["rollout", "start", str(tmp_path / "out"), *words]) == 2
        assert complaint in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_the_shipped_stages_are_refused_for_a_release_whose_drives_cannot_tell_drift(self, pem, capsys, tmp_path):
        works = Works.founded(tmp_path / "works")
        known = Reference(input=Counted(frames=100, parts={}), output=Counted(frames=100, parts={}))
        bare, told = works.publish("bare"), works.publish("told", service_ms=0.1, reference=known)
        where = ["--repository", str(works.repository), "--keys", str(tmp_path / "works" / "keys"), "--key", pem]
        words = ["--name", "may", "--candidate", told.name, "--control", bare.name, *where]
        assert main(["rollout", "start", str(tmp_path / "out"), *words]) == 2
        said = capsys.readouterr().err
        assert f"release {bare.name}: was published without a reference" in said
        assert "input_drift and output_drift" in said
        assert not (tmp_path / "out").exists()
        (tmp_path / "stages.yaml").write_text("\n".join(x for x in STAGES.splitlines() if "drift" not in x))
        assert main(["rollout", "start", str(tmp_path / "out"), *words, "--stages", str(tmp_path / "stages.yaml")]) == 0

    def test_the_shipped_stages_ask_for_the_fleet_and_reckon_with_its_size(self, pem, capsys, tmp_path):
        Cars(tmp_path, 100)
        words = ["--name", "n", "--candidate", CANDIDATE, "--control", CONTROL, "--key", pem]
        assert main(["rollout", "start", str(tmp_path / "out"), *words]) == 2
        assert "canary and 1 % ask for a least number of vehicles" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert main(["rollout", "start", str(tmp_path / "out"), *words, "--fleet", str(tmp_path / "fleet.jsonl")]) == 0
        plan = json.loads((tmp_path / "out" / "rollout.json").read_text())
        assert plan["stages"][1]["share"] == pytest.approx(15 / 95)

    def test_half_of_a_repository_is_refused(self, started, pem, capsys, tmp_path):
        assert main(["rollout", "auto", started, "--key", pem, "--repository", str(tmp_path)]) == 2
        assert "expected both or neither" in capsys.readouterr().err

    def test_simulate_shows_its_table(self, tmp_path, capsys):
        (tmp_path / "stages.yaml").write_text(STAGES)
        words = ["--case", "crash_loop", "--vehicles", "300", "--runs", "2", "--workers", "1", "--json"]
        assert (
            main(
                [
                    "rollout",
                    "simulate",
                    "--stages",
                    str(tmp_path / "stages.yaml"),
                    *words,
                    "--output",
                    str(tmp_path / "s"),
                ]
            )
            == 0
        )
        assert json.loads(capsys.readouterr().out)[0]["runs"] == 2


class TestMetrics:
    def test_every_line_is_as_prometheus_reads_it(self, rollout, key):
        text = prometheus(looked(rollout, key, compared=1000.0, disagreed=900.0), {"accepted": 7}).decode()
        sample = re.compile(r'[a-z_]+\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\} -?[0-9.e+-]+')
        assert all(line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line) for line in text.splitlines())
        assert 'tollgate_rollout_records_total{rollout="november",reason="accepted"} 7' in text
        assert 'tollgate_rollout_decisions_total{rollout="november",action="rollback"} 1' in text
        assert 'tollgate_rollout_figure{rollout="november",criterion="shadow_disagreement"} 0.9' in text


class TestPage:
    def test_it_shows_stages_evidence_decisions_and_telemetry_without_a_complaint(self, browser, page):
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(page.as_uri())
        for expected in ("ROLLED BACK", "30 %", "Deadline misses", "shown to be above 1.1", "1,234", "Exposure"):
            assert expected in tab.content()
        assert said == []

    def test_it_asks_no_host_for_anything_and_carries_no_script(self, page):
        text = page.read_text()
        assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|@import|<script', text) == []
        assert "default-src 'none'" in text

    def test_a_phone_shows_the_standing_over_its_whole_width(self, browser, page):
        shot = page.with_name("phone.png")
        opened(browser, page, size={"width": 500, "height": 1200}).screenshot(path=shot)
        picture = cv2.imread(str(shot))
        assert picture.shape[:2] == (1200, 500)
        assert (picture[4, 4] == picture[4, 495]).all()
        assert int(picture[4, 4].max()) - int(picture[4, 4].min()) > 60
        assert picture[300:].std() > 10

    def test_a_phone_shows_every_plot_from_its_first_day_to_its_last(self, browser, page):
        tab = opened(browser, page, size=PHONE)
        boxes = [plot.bounding_box() for plot in tab.locator("figure svg").all()]
        assert len(boxes) > 3
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE["width"]

    def test_an_event_that_is_not_quite_harm_asks_for_a_person(self, rollout, key):
        rollout = command(rollout, "advance", "to candidates", key, now_ns=NOW_NS, seen_stage="shadow")
        few = table(vehicles=300, drawn=0.02)
        few.now["crashed"][np.flatnonzero(few.candidate)[0]] = 1.0
        now_ns = NOW_NS + DAY_NS
        found = judge_stage(rollout.file, rollout.stage, few, at=rollout.next_look(now_ns))
        waiting = judged(rollout, found, {}, key, now_ns=now_ns)
        assert "! WAITS FOR A PERSON" in render(waiting, {}, now_ns).decode()
        later = judged(
            waiting, judge_stage(rollout.file, rollout.stage, table(), at=Look(2, 1, 1.0)), {}, key, now_ns=now_ns
        )
        assert "▸ ROLLING" in render(later, {}, now_ns).decode()

    def test_what_a_person_writes_is_shown_and_not_run(self, rollout, key, tmp_path):
        moved = command(rollout, "hold", "<script>alert(1)</script>", key, now_ns=rollout.log.last.at_ns)
        text = render(moved, {}, moved.log.last.at_ns).decode()
        assert "<script>" not in text
        assert "&lt;script&gt;" in text
