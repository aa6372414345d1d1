from __future__ import annotations

import os

import pytest

from compile.store import Store, default_folder


def answers(*given: bytes):
    """Makes one answer after the other; fails when asked for more."""
    left = list(given)
    return lambda: left.pop(0)


def test_an_answer_is_made_once_and_recalled_by_another_process_of_the_same_code(tmp_path):
    make = answers(b"forty-two")
    assert Store(tmp_path).content(("question", 1), make) == b"forty-two"
    again = Store(tmp_path)
    assert again.content(("question", 1), make) == b"forty-two"
    assert (again.recalled, again.made) == (1, 0)


def test_another_key_is_another_answer(tmp_path):
    store = Store(tmp_path)
    assert store.content(("question", 1), lambda: b"one") == b"one"
    assert store.content(("question", 2), lambda: b"two") == b"two"


@pytest.mark.parametrize("damage", [b"", b"short", b"0" * 64 + b"another answer"])
def test_a_damaged_answer_is_made_again(tmp_path, damage):
    store = Store(tmp_path)
    store.content(("question",), lambda: b"forty-two")
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept.write_bytes(damage)
    assert not store.holds(("question",))
    assert store.content(("question",), lambda: b"forty-three") == b"forty-three"
    assert store.holds(("question",))


def test_documents_come_back_as_they_were(tmp_path):
    document = {"share": 0.1, "names": ["é", None], "deep": {"whole": 3}}
    assert Store(tmp_path).document(("d",), lambda: document) == document
    assert Store(tmp_path).document(("d",), answers()) == document


def test_without_a_folder_everything_is_made_anew():
    store = Store(None)
    assert [store.content(("q",), answers(text)) for text in (b"a", b"b")] == [b"a", b"b"]
    assert not store.holds(("q",))


def test_a_folder_that_cannot_be_written_costs_the_answer_nothing(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    store = Store(blocked)
    assert store.content(("q",), lambda: b"a") == b"a"
    assert "the cache keeps nothing more" in caplog.text
    assert store.content(("q",), lambda: b"b") == b"b"


def test_tidying_deletes_what_was_not_asked_for_the_longest(tmp_path):
    store = Store(tmp_path)
    for number in range(4):
        store.content((number,), lambda: b"x" * 1000)
        newest = max(tmp_path.rglob("??*/*"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    store.content((0,), answers())  # asked for again: now the youngest
    store.tidy(most_bytes=2500)
    assert [store.holds((number,)) for number in range(4)] == [True, False, False, True]


def test_the_default_folder_follows_the_desktop_specification(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "tollgate" / "compile"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder().parts[-3:] == (".cache", "tollgate", "compile")
