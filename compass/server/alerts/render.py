"""Text of a message to administrators, for mail and syslog, and its JSON, for webhooks and commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from compass.model.text import escape
from compass.server.alerts.outbox import Event, IncidentUpdate, Message

SUBJECT_MAX = 200
"""Characters of a subject: the text of an incident may quote what an unknown client reported."""
_SAID: dict[Event, str] = {"opened": "ALERT", "resolved": "over", "passed": "over already"}
_COUNTED: dict[Event, str] = {"opened": "began", "resolved": "are over", "passed": "began and are over already"}


def render_subject(message: Message) -> str:
    """Return one line of printable characters, which can stand in a mail's header and in a log."""
    if message.event == "test":
        return "test of the alerts"
    if message.event == "digest":
        counts = (f"{count:,} {_COUNTED[event]}" for event, count in message.counts.items())
        return f"{sum(message.counts.values()):,} incidents: {', '.join(counts)}"
    return _line(message.news[0])[:SUBJECT_MAX]


def render_text(message: Message, server: str, when: Callable[[float], str]) -> str:
    """Return the text of a message; `when` formats a UNIX time."""
    lines = [render_subject(message), ""]
    if message.event == "test":
        lines += ["An administrator asked for this message: alerts through this channel arrive."]
    for one in message.news:
        if message.event == "digest":
            lines += [f"{when(one.time)}  {_line(one)}"]
        else:
            lines += [f"incident   {escape(one.alert.id)}", f"began      {when(one.alert.opened_at)}"]
            lines += [f"over       {when(one.resolved_at)}"] if one.resolved_at else []
    left = sum(message.counts.values()) - len(message.news)
    if message.event == "digest" and left:
        lines += ["", f"and {left:,} more. They came faster than messages may be sent, and share this one."]
    if message.event != "test":
        lines += ["", "What is open now: opengnsadmin alert list"]
    lines += ["", "-- ", f"OpenGNS server {server}", f"message {message.id}"]
    return "\n".join(lines) + "\n"


def render_json(message: Message, server: str) -> dict[str, Any]:
    """Return what a webhook and a command receive; `docs/reference/alerts.md` describes it."""
    head = {"event": message.event, "message": message.id, "server": server}
    if message.event == "test":
        return {**head, "time": message.time, "text": render_subject(message)}
    if message.event == "digest":
        incidents = [_fields(one) for one in message.news]
        summary = render_subject(message)
        return {**head, "time": message.time, "text": summary, "counts": message.counts, "incidents": incidents}
    return {**head, **_fields(message.news[0])}


def _fields(news: IncidentUpdate) -> dict[str, Any]:
    over = {"resolved_at": news.resolved_at} if news.resolved_at else {}
    alert = news.alert
    shown = msgspec.structs.replace(alert, id=escape(alert.id), text=escape(alert.text))
    row = msgspec.to_builtins(shown)
    return {"event": news.event, "time": news.time, "revision": news.revision, **row, **over}


def _line(news: IncidentUpdate) -> str:
    return f"{_SAID[news.event]}: {escape(news.alert.text)}"
