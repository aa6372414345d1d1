"""Records wait in a bounded spool and reach the server once, whatever is interrupted."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from perception.errors import OutputError, RolloutError
from perception.telemetry_record import sign_record
from perception.telemetry_spool import NEXT, Spool
from tests.disk import room_for
from tests.perception.fleet import new_key, record


@contextmanager
def keeping(folder):
    """A real server that keeps what is put under `folder`; `refusing` makes it answer 503."""

    class Keeper(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if listening.refusing:
                self.send_error(503)
                return
            path = folder / self.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Keeper)
    listening.refusing, listening.folder = False, folder
    listening.address = f"http://127.0.0.1:{listening.server_port}/telemetry"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield listening
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


@pytest.fixture
def server(tmp_path):
    with keeping(tmp_path / "received") as listening:
        yield listening


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", "car-1")


def filled(spool, drives=3):
    signer = new_key()
    for _ in range(drives):
        sequence = spool.reserve()
        spool.put(sequence, sign_record(record(sequence=sequence), signer))
    return [path.read_bytes() for path in spool.pending()]


def received(tmp_path):
    return [path.read_bytes() for path in sorted((tmp_path / "received" / "telemetry" / "car-1").glob("*.json"))]


def test_what_waits_arrives_and_leaves_the_spool(spool, server, tmp_path):
    lines = filled(spool)
    assert spool.upload(server.address).sent == 3
    assert received(tmp_path) == lines
    assert spool.pending() == ()


def test_a_server_that_refuses_loses_nothing(spool, server, tmp_path):
    lines = filled(spool)
    server.refusing = True
    delivery = spool.upload(server.address)
    assert (delivery.sent, delivery.left) == (0, 3)
    assert "503" in delivery.reason
    server.refusing = False
    assert spool.upload(server.address).sent == 3
    assert received(tmp_path) == lines


def test_without_a_network_the_records_wait(spool):
    filled(spool)
    delivery = spool.upload("http://127.0.0.1:9/telemetry", timeout_s=2)
    assert (delivery.sent, delivery.left) == (0, 3)
    assert len(spool.pending()) == 3


def test_sending_a_record_twice_leaves_one(spool, server, tmp_path):
    (line,) = filled(spool, 1)
    spool.upload(server.address)
    spool.put(0, line)  # as after a power cut between the server's answer and the removal
    assert spool.upload(server.address).sent == 1
    assert received(tmp_path) == [line]


def test_the_bound_lets_the_oldest_go_and_keeps_the_newest(tmp_path):
    spool = Spool(tmp_path / "spool", "car-1", most_bytes=250)
    gone = [spool.put(spool.reserve(), b"x" * 100) for _ in range(4)]
    assert gone == [0, 0, 1, 1]
    assert [path.stem for path in spool.pending()] == [f"{2:020d}", f"{3:020d}"]
    assert spool.put(spool.reserve(), b"x" * 900) == 2
    assert [path.stem for path in spool.pending()] == [f"{4:020d}"]


def test_a_sequence_is_never_given_twice_even_when_its_record_was_lost(tmp_path):
    assert Spool(tmp_path, "car-1").reserve() == 0
    assert Spool(tmp_path, "car-1").reserve() == 1


def test_a_damaged_counter_is_told_and_not_guessed(spool):
    (spool.folder / NEXT).write_text("seven")
    with pytest.raises(RolloutError, match="holds no number"):
        spool.reserve()


def test_on_a_full_disk_what_waited_is_still_there(spool):
    lines = filled(spool)
    with room_for(100), pytest.raises(OutputError, match="free space"):
        spool.put(3, b"x" * 200)
    with room_for(0), pytest.raises(OutputError, match="free space"):
        spool.reserve()
    assert [path.read_bytes() for path in spool.pending()] == lines
    assert spool.reserve() == 3
    assert sorted(path.name for path in spool.folder.iterdir() if path.name.startswith(".")) == []


def test_an_address_that_is_no_web_address_is_misuse(spool):
    with pytest.raises(ValueError, match="expected http"):
        spool.upload("file:///tmp/telemetry")
