"""The log as JSON: one object per line, with exactly the fields of the sentence, whatever the sentence quotes."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import pytest
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from compass.daemons.process.logging import FIELD_MAX, TEXT_MAX, fields_of, json_line, observer
from compass.model.rules.draft import Principal


def event(sentence: str, **more: Any) -> LogEvent:
    return {
        "log_format": sentence,
        "log_level": LogLevel.warn,
        "log_namespace": "n",
        "log_time": 1795673801.0625,
        **more,
    }


def written(said: LogEvent) -> dict[str, Any]:
    line = json_line(said)
    assert line is not None and line.endswith("\n") and line[:-1].isprintable() and len(line.splitlines()) == 1
    read: dict[str, Any] = json.loads(line)
    return read


def test_an_entry_is_an_object_with_what_its_sentence_names() -> None:
    """Numbers stay numbers, other fields are text as in the sentence; unnamed values are left out."""
    said = event(
        "session of {asker} ended after {n} requests: {why}",
        asker=Principal("host", "web1", "192.0.2.1"),
        n=3,
        why=ValueError("x"),
        secret="token",
        log_source=object(),
    )
    assert written(said) == {
        "time": "2026-11-26T06:16:41.062Z",
        "level": "warn",
        "namespace": "n",
        "text": "session of host 'web1' ended after 3 requests: x",
        "fields": {"asker": "host 'web1'", "n": 3, "why": "x"},
    }


@pytest.mark.parametrize("words", ["\x1b[2J\r\n{", "\u2028\u202e\x9b\x7f", "\udc80", "\U000e0001", "服务 ok"])
def test_whatever_is_quoted_stays_in_one_printable_line(words: str) -> None:
    """Input cannot forge a line or control a terminal; escaped text can be read back."""
    read = written(event("it said {said}", said=words))
    said = words.encode("utf-8", "backslashreplace").decode()
    assert read["text"] == f"it said {said}" and read["fields"] == {"said": said}


def test_a_failure_brings_its_traceback() -> None:
    """The traceback is one string, cut at its beginning: its last lines name the failure."""
    try:
        raise KeyError("x" * (TEXT_MAX + 1))
    except KeyError:
        read = written(event("a request failed", log_failure=Failure()))
    assert read["text"] == "a request failed" and len(read["traceback"]) == TEXT_MAX


@pytest.mark.parametrize("more", [0, 1])
def test_long_words_are_cut(more: int) -> None:
    """Fields and sentences have limits."""
    read = written(event("{a}", a="x" * (FIELD_MAX + more)))
    assert len(read["fields"]["a"]) == FIELD_MAX and len(read["text"]) == FIELD_MAX + more
    assert len(written(event("x" * (TEXT_MAX + more)))["text"]) == TEXT_MAX


def test_what_is_no_sentence_is_not_lost() -> None:
    """An event without text is dropped; an invalid format is reported; a number that JSON lacks becomes text."""
    assert json_line({}) is None
    assert fields_of(event("{")) == {}
    assert "Unable to format" in written(event("{missing!x}"))["text"]
    assert written(event("{n} {call()}", n=float("nan"), call=lambda: 7))["fields"] == {"n": "nan", "call": "7"}


def test_what_a_worker_said_keeps_its_fields() -> None:
    """The parent adds which worker it was."""
    said = event("worker {n}: {text}", n=2, text="session of x ended", worker_fields={"asker": "x"})
    assert written(said)["fields"] == {"asker": "x", "worker": 2}


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_configuration_chooses(form: Any) -> None:
    """Both formats contain the same entry."""
    file = io.StringIO()
    Logger("compass.test", observer=cast(Any, observer(form, file))).info("{n} hosts", n=5)
    line = file.getvalue()
    assert (json.loads(line)["text"] if form == "json" else line.partition("] ")[2]) == (
        "5 hosts" if form == "json" else "5 hosts\n"
    )
