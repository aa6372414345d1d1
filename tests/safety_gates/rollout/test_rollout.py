"""A rollout moves by entries of its signed log alone; whoever alters one, or comes second, is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from perception.cohort import RolloutPlan, assignment
from perception.errors import OutputError, RolloutError, VerificationError
from safety_gates.rollout.decision import Look, judge_stage
from safety_gates.rollout.decision_log import entry_path, read_log
from safety_gates.rollout.moving import command, judged
from safety_gates.rollout.rollout import open_rollout, publish
from tests.disk import room_for
from tests.perception.fleet import CONTROL, NOW_NS, new_key
from tests.safety_gates.rollout.field import DAY_NS, STAGES, begun, reread
from tests.safety_gates.rollout.test_decision import table


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def looked(rollout, key, day=1, **changes):
    """One automatic look at figures of the field."""
    now_ns = NOW_NS + day * DAY_NS
    found = judge_stage(rollout.file, rollout.stage, table(**changes), at=rollout.next_look(now_ns))
    return judged(rollout, found, {"accepted": 400}, key, now_ns=now_ns)


def published(rollout):
    publish(rollout)
    return RolloutPlan.from_bytes((rollout.log.folder / "rollout.json").read_bytes())


class TestSteps:
    def test_a_harmless_candidate_goes_through_every_stage_and_stays(self, rollout, key):
        stages = []
        for day in range(1, 4):
            shadow = {"compared": 1000.0, "disagreed": 20.0} if rollout.stage.shadow else {}
            rollout = reread(looked(rollout, key, day, **shadow))
            stages.append(published(rollout).stage)
        assert stages == ["30 %", "100 %", "100 %"]
        assert [entry.action for entry in rollout.log.entries] == ["start", "advance", "advance", "complete"]
        assert rollout.ended
        with pytest.raises(RolloutError, match="has ended"):
            command(rollout, "advance", "more", key, now_ns=NOW_NS)

    def test_a_rollback_gives_every_vehicle_the_control_release(self, rollout, key):
        rollout = reread(looked(rollout, key, compared=1000.0, disagreed=900.0))
        plan = published(rollout)
        assert {assignment(plan, f"car-{number}").release.sha256 for number in range(50)} == {CONTROL["sha256"]}
        assert plan.serial == 1
        assert "shadow_disagreement" in rollout.log.last.reason

    def test_looks_are_counted_in_their_stage_only(self, rollout, key):
        rollout = looked(rollout, key, day=0.5)
        rollout = looked(rollout, key, day=0.9)
        assert rollout.next_look(NOW_NS + DAY_NS) == Look(3, 0, 24.0)
        rollout = reread(looked(rollout, key, compared=1000.0, disagreed=20.0))
        assert rollout.plan.stage == "30 %"
        assert rollout.next_look(NOW_NS + DAY_NS) == Look(1, 0, 0.0)
        assert rollout.due_in_h(NOW_NS + DAY_NS) == 24.0

    def test_a_person_who_holds_keeps_it_from_advancing_until_it_is_lifted(self, rollout, key):
        fine = {"compared": 1000.0, "disagreed": 20.0}
        held = command(rollout, "hold", "a look at the pictures first", key, now_ns=NOW_NS)
        for day in (1, 2):
            held = reread(looked(held, key, day, **fine))
            assert (held.log.last.action, held.log.last.paused, held.plan) == ("look", True, rollout.plan)
            assert "held by a person (a look at the pictures first); soaked, and all" in held.log.last.reason
        assert held.next_look(NOW_NS).number == 3
        lifted = command(held, "resume", "pictures are fine", key, now_ns=NOW_NS)
        assert looked(lifted, key, 3, **fine).log.last.action == "advance"

    def test_what_a_person_holds_is_rolled_back_all_the_same_where_it_does_harm(self, rollout, key):
        held = command(rollout, "hold", "a look at the pictures first", key, now_ns=NOW_NS)
        ended = reread(looked(held, key, compared=1000.0, disagreed=900.0))
        assert (ended.plan.state, ended.log.last.paused) == ("rolled_back", False)

    def test_the_figures_stand_in_the_log(self, rollout, key):
        rollout = reread(looked(rollout, key))
        kept = rollout.log.last
        assert kept.telemetry == {"accepted": 400}
        assert {each["quantity"] for each in kept.judgement["findings"]} >= {"crashes", "deadline_misses"}


class TestTwoOperators:
    def test_of_two_who_advance_at_once_one_wins_and_the_other_is_told(self, tmp_path, key):
        other = new_key()
        rollout = begun(tmp_path / "r", key, operators=(other.public_key,))

        def advance(signer):
            try:
                return command(rollout, "advance", "looks good", signer, now_ns=NOW_NS, seen_stage="shadow")
            except RolloutError as refused:
                return refused

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(advance, [key, other] * 4))
        refusals = [each for each in results if isinstance(each, RolloutError)]
        assert len(refusals) == 7
        assert all("somebody was faster: entry 1 is advance (looks good)" in str(each) for each in refusals)
        assert [entry.plan.stage for entry in reread(rollout).log.entries] == ["shadow", "30 %"]

    def test_one_who_comes_a_moment_later_does_not_advance_twice(self, rollout, key):
        command(rollout, "advance", "looks good", key, now_ns=NOW_NS, seen_stage="shadow")
        with pytest.raises(RolloutError, match="is in stage '30 %', expected 'shadow': the last step was advance"):
            command(reread(rollout), "advance", "looks good", key, now_ns=NOW_NS, seen_stage="shadow")

    def test_who_is_no_operator_decides_nothing(self, rollout):
        before = snapshot(rollout.log.folder)
        with pytest.raises(VerificationError, match="no operator of this rollout"):
            command(rollout, "advance", "mine now", new_key(), now_ns=NOW_NS)
        assert snapshot(rollout.log.folder) == before


class TestTampering:
    def test_a_stage_file_edited_after_signing_is_refused(self, rollout):
        path = rollout.log.folder / "stages.yaml"
        path.write_text(STAGES.replace("limit: 1.75", "limit: 17.5"))
        before = snapshot(rollout.log.folder)
        with pytest.raises(VerificationError, match="edited after it was signed"):
            open_rollout(rollout.log.folder)
        assert snapshot(rollout.log.folder) == before

    def test_a_lost_stage_file_comes_back_from_the_log(self, rollout):
        (rollout.log.folder / "stages.yaml").unlink()
        publish(reread(rollout))
        assert (rollout.log.folder / "stages.yaml").read_text() == STAGES

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_an_altered_entry_is_refused(self, rollout, key, number):
        rollout = looked(looked(rollout, key, 0.5), key, 0.9)
        path = entry_path(rollout.log.folder, number)
        path.write_text(path.read_text().replace('"payload": "', '"payload": "ICAg', 1))
        with pytest.raises(VerificationError):
            read_log(rollout.log.folder)

    def test_a_removed_entry_is_refused(self, rollout, key):
        rollout = looked(looked(rollout, key, 0.5), key, 0.9)
        entry_path(rollout.log.folder, 1).unlink()
        with pytest.raises(VerificationError, match="is missing"):
            read_log(rollout.log.folder)

    def test_an_entry_of_another_rollout_is_refused(self, rollout, key, tmp_path):
        other = looked(begun(tmp_path / "other", key), key)
        entry_path(rollout.log.folder, 1).write_bytes(entry_path(other.log.folder, 1).read_bytes())
        with pytest.raises(VerificationError, match="does not follow the entry before it"):
            read_log(rollout.log.folder)

    def test_an_entry_signed_by_a_stranger_is_refused(self, rollout, key):
        looked(rollout, key)
        path, stranger = entry_path(rollout.log.folder, 1), new_key()
        document = json.loads(path.read_text())
        document["signatures"][0]["keyid"] = stranger.public_key.keyid
        path.write_text(json.dumps(document))
        with pytest.raises(VerificationError, match="altered, or signed by no operator"):
            read_log(rollout.log.folder)

    def test_a_log_replaced_as_a_whole_is_refused_by_whoever_writes_next(self, tmp_path, key):
        forged = begun(tmp_path / "rollout", new_key())
        with pytest.raises(VerificationError, match="no operator of this rollout"):
            command(forged, "advance", "fine", key, now_ns=NOW_NS)

    def test_garbage_in_the_log_is_told_in_one_line(self, rollout):
        entry_path(rollout.log.folder, 1).write_bytes(b"\x00garbage")
        with pytest.raises(VerificationError, match="no signed entry"):
            read_log(rollout.log.folder)

    def test_a_folder_is_not_started_twice(self, rollout, key):
        before = snapshot(rollout.log.folder)
        with pytest.raises(RolloutError, match="holds a rollout already"):
            begun(rollout.log.folder, key)
        assert snapshot(rollout.log.folder) == before

    def test_a_candidate_that_is_control_is_refused(self, tmp_path, key):
        with pytest.raises(RolloutError, match="is the control release"):
            begun(tmp_path / "r", key, candidate=CONTROL)
        assert not (tmp_path / "r").exists()


class TestFullDisk:
    def test_no_start_is_half_made(self, tmp_path, key):
        with room_for(100), pytest.raises(OutputError, match="free space"):
            begun(tmp_path / "r", key)
        assert begun(tmp_path / "r", key).plan.stage == "shadow"

    def test_a_decision_that_cannot_be_written_was_not_made(self, rollout, key):
        publish(rollout)
        before = snapshot(rollout.log.folder)
        with room_for(100), pytest.raises(OutputError, match="free space"):
            looked(rollout, key, compared=1000.0, disagreed=900.0)
        assert snapshot(rollout.log.folder) == before
        assert looked(reread(rollout), key, compared=1000.0, disagreed=900.0).plan.state == "rolled_back"

    def test_a_decision_that_could_not_be_published_is_published_by_the_next_command(self, rollout, key):
        publish(rollout)
        moved = looked(rollout, key, compared=1000.0, disagreed=900.0)
        with room_for(100), pytest.raises(OutputError, match="free space"):
            publish(moved)
        assert RolloutPlan.from_bytes((rollout.log.folder / "rollout.json").read_bytes()).state == "rolling"
        assert published(reread(rollout)).state == "rolled_back"


def test_the_least_vehicles_of_a_stage_are_reckoned_for_the_fleet_and_stand_in_the_signed_plan(tmp_path, key):
    stages = STAGES.replace("share: 0.3,", "share: 0.3, least: 45,")
    with pytest.raises(RolloutError, match=r"30 % ask for a least number of vehicles.*with --fleet"):
        begun(tmp_path / "unknown", key, stages=stages)
    assert not (tmp_path / "unknown").exists()
    rollout = begun(tmp_path / "known", key, stages=stages, vehicles=100)
    assert [each.share for each in rollout.plan.stages] == [0.0, 0.5, 1.0]
    assert reread(rollout).file == rollout.file
    assert (tmp_path / "known" / "stages.yaml").read_text() == stages


def test_a_folder_without_a_rollout_says_how_to_begin(tmp_path):
    with pytest.raises(RolloutError, match="begin one with: tollgate rollout start"):
        open_rollout(tmp_path)
