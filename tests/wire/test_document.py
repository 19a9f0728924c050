"""The written protocol agrees with the program: fields, codes, limits, diagrams and promises (`protocols/`)."""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any, get_args

import msgspec
import pytest

from compass.model.replies import CODES
from compass.model.requests import Request
from compass.model.rows import State
from compass.model.rules import decide as rules
from compass.wire.frames import frame
from compass.wire.messages import Hello, encode
from tests.wire import make_diagrams, protocol
from tests.wire.protocol import DOCUMENT, ROOT, section
from tests.wire.vocabulary import MESSAGES, WIRE_STRUCTS

MISSION_PROMISES = 13
_LIMIT = re.compile(r"[A-Z][A-Z_]*_(MAX|MIN|SECONDS|EVERY)(_[A-Z]+)*")


def name_of(struct: type[msgspec.Struct]) -> str:
    """Return the document's name of a struct: its tag, or its class's name in the same spelling."""
    return str(struct.__struct_config__.tag or re.sub(r"(?<!^)(?=[A-Z])", "-", struct.__name__).lower())


def table(text: str, first: str) -> list[list[str]]:
    """The rows of every table in `text` whose first column has that heading, as cells."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if not cells:
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not cells[0].startswith("---"):
            found.append(cells)
    return found


NOT_OF_THE_PROTOCOL = ("backoff", "host_api", "unanswered")
"""Modules below the vocabulary whose constants no peer can observe."""


def constants_of(package: str) -> dict[str, set[object]]:
    """Return the limits among the constants of a package's modules, each with its value in every module that has it."""
    found: dict[str, set[object]] = {}
    for path in sorted((ROOT / "compass" / package).rglob("*.py")):
        if path.stem in NOT_OF_THE_PROTOCOL:
            continue
        module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for name in re.findall(r"^([A-Z][A-Z_]*)(?:: [^=]+)? = ", path.read_text(), re.MULTILINE):
            value = getattr(module, name)
            if _LIMIT.fullmatch(name) and isinstance(value, int | float):
                found.setdefault(name, set()).add(value)
    return found


def source_of(name: str) -> str:
    """Return the text of the module of `compass.model` with that file name, in whatever folder."""
    (path,) = (ROOT / "compass" / "model").rglob(name)
    return path.read_text()


@pytest.mark.parametrize("struct", WIRE_STRUCTS, ids=name_of)
def test_every_field_of_every_message_is_written_down(struct: type[msgspec.Struct]) -> None:
    """The section of a message lists its fields, all and no others, and says which are required."""
    rows = table(section(f"`{name_of(struct)}`"), "field")
    written = {cells[0].strip("`"): cells[2] == "required" for cells in rows}
    assert written == {field.name: field.required for field in msgspec.structs.fields(struct)}


@pytest.mark.parametrize("struct", WIRE_STRUCTS, ids=name_of)
def test_every_default_is_written_down(struct: type[msgspec.Struct]) -> None:
    """A writer may leave out what has its default, so the defaults are part of the protocol."""
    shown = {cells[0].strip("`"): cells[2] for cells in table(section(f"`{name_of(struct)}`"), "field")}
    for field in msgspec.structs.fields(struct):
        if not field.required:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            assert shown[field.name] == spelled(default), field.name


def spelled(default: Any) -> str:
    match default:
        case None:
            return "nil"
        case bool():
            return str(default).lower()
        case str():
            return f'"{default}"'
        case ():
            return "[]"
        case msgspec.Struct():
            return "all defaults"
        case _:
            return str(default)


def test_there_is_no_section_for_a_message_that_does_not_exist() -> None:
    """The sections named by a tag are messages, rows and structures, each once."""
    headings = re.findall(r"^#+ `(.*)`$", DOCUMENT, re.MULTILINE)
    assert sorted(headings) == sorted(name_of(struct) for struct in WIRE_STRUCTS)


@pytest.mark.parametrize("struct", [s for s in get_args(Request) if s in MESSAGES], ids=name_of)
def test_every_request_says_who_may_ask_it(struct: type[msgspec.Struct]) -> None:
    """The roles written down are those that the rules check."""
    text = section(f"`{name_of(struct)}`")
    who = re.search(r"Who: ([a-z, ]+)\.", text)
    assert who, f"no 'Who:' in the section of {name_of(struct)}"
    assert set(who[1].split(", ")) == rules.ROLES[struct]


@pytest.mark.parametrize("struct", [s for s in get_args(Request) if s in MESSAGES], ids=name_of)
def test_every_request_names_a_reply_and_known_codes(struct: type[msgspec.Struct]) -> None:
    """Every name after 'Reply' is a message; every name after 'Refusals' is a code."""
    text = " ".join(section(f"`{name_of(struct)}`").split("| field")[0].split())
    reply = re.search(r"Reply: `([a-z-]+)`", text)
    assert reply and reply[1] in {name_of(message) for message in MESSAGES}
    refusals = re.search(r"Refusals: (.*)", text)
    for code in re.findall(r"`([a-z]+-[a-z-]+|exists|forbidden)`", refusals[1] if refusals else ""):
        assert code in CODES


def test_every_refusal_code_is_in_the_table() -> None:
    """The document lists the codes in the program's order, all and no others."""
    assert [cells[0].strip("`") for cells in table(section("Refusals"), "code")] == list(CODES)


def test_every_limit_is_in_the_table_with_its_value() -> None:
    """Limits of wire and model: all of them. Of the server: those that are named have the right value."""
    written = {cells[0].strip("`"): ast.literal_eval(cells[1]) for cells in table(section("Limits"), "limit")}
    assert len(written) == len(table(section("Limits"), "limit"))
    of_protocol = {**constants_of("wire"), **constants_of("model")}
    assert {name: {written.get(name)} for name in of_protocol} == of_protocol
    of_server = constants_of("server")
    for name in written.keys() - of_protocol.keys():
        assert of_server.get(name) == {written[name]}, name


def test_every_timer_is_a_limit() -> None:
    """The table of timers names constants of the protocol, all that the wire has of its own among them."""
    timers = {cells[0].strip("`") for cells in table(section("Timers"), "timer")}
    assert timers >= {name for name in constants_of("wire") if name.endswith("_SECONDS")}
    assert timers <= {**constants_of("wire"), **constants_of("model")}.keys()


def test_the_diagrams_are_those_of_the_table() -> None:
    """`python -m tests.wire.make_diagrams` changes nothing."""
    chapter = make_diagrams.PATH.read_text()
    assert make_diagrams.drawn(chapter) == chapter


def test_every_promise_is_quoted_by_its_number() -> None:
    """P1 to P13, in order, each with what it rests on and how far it is kept."""
    promises = re.split(r"^\d+\. ", section("Promises"), flags=re.MULTILINE)[1:]
    numbers = [re.match(r"\*\*P(\d+) [a-z0-9 ]+\*\*: ", promise) for promise in promises]
    assert [int(number[1]) for number in numbers if number] == list(range(1, MISSION_PROMISES + 1))
    for promise in promises:
        assert "*Rests on*:" in promise and "*Today*:" in promise


def test_every_state_of_a_listener_is_explained() -> None:
    """The document describes each state: its meaning, whether new users get it, and its origin."""
    states = set(get_args(State))
    assert {cells[0].strip("`") for cells in table(section("`listener`"), "state")} == states
    targets = {
        state for cells in table(section("State transitions"), "from") for state in re.findall(r"`(\w+)`", cells[2])
    }
    assert targets == states


def test_every_operation_on_a_listener_has_its_transition() -> None:
    """The operations that the rules give to changes of listeners are those of the table of states."""
    source = source_of("listeners.py") + source_of("administration.py")
    known = set(re.findall(r"`([a-z-]+)`", section("`change`").split("| `operation` |")[1].split("\n")[0]))
    written = set(re.findall(r'draft\.(?:set|remove)\(\s*"([a-z-]+)"', source))
    assert written <= known
    steps = {
        word for cells in table(section("State transitions"), "from") for word in re.findall(r"`([a-z-]+)`", cells[3])
    }
    assert steps <= known
    assert {"register", "deregister", "died", "drain", "undrain", "confirm", "retract", "recover", "purge"} <= steps


def test_the_example_of_a_frame_is_right() -> None:
    """The octets printed for `hello` are those that are sent."""
    lines = section("Framing").rsplit("octets:", 1)[1].splitlines()
    octets = re.findall(r"(?<!\S)[0-9a-f]{2}(?!\S)", " ".join(line.split("{")[0] for line in lines))
    assert bytes.fromhex("".join(octets)) == frame(encode(Hello((1,))))


def test_the_table_of_contents_names_every_chapter() -> None:
    """The entry page links to each file of the protocol; tests/docs checks that links lead somewhere."""
    linked = set(re.findall(r"\]\(opengnsp/([^)#]*)", protocol.ENTRY.read_text()))
    assert linked == {path.relative_to(protocol.FOLDER).as_posix() for path in protocol.CHAPTERS}


@pytest.mark.parametrize("anchor", protocol.ANCHORS_OF_ONE_FILE)
def test_anchors_of_the_time_of_one_file_still_lead_to_their_topic(anchor: str) -> None:
    """Links into `opengnsp.md` that others have published find the entry of the table of contents."""
    assert protocol.ENTRY.read_text().count(f'<a id="{anchor}"></a>') == 1
