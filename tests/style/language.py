"""The language of comments, docstrings and messages, counted: `make language`.

python -m tests.style.language                  the tables
python -m tests.style.language --list server    each headless docstring and banned word of one package
python -m tests.style.language --lower          write the figures of today into budget.txt, where they are lower
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from tests.style.sources import ROOT, Source, Text, sources

HEADLESS = re.compile(
    r"(What|Who|Whoever|Whom|Whose|Whether|How|Of|By|With|For|From|In|To|On|It|Its|They|One|Those|Nobody|So|As|Another"
    r"|Some|Somebody|Where|When|Until|Since)\b"
)
"""The first word of a docstring that does not say what it is about."""
_BANNED = (
    r"\b(whoever|nobody|somebody|everybody|anew|in vain|besides?|as ever|c[ao]mes? to nothing|so (many|long|often|much)"
    r"|has gone|is away|no more|tells?|told|telling)\b"
)
BANNED = re.compile(_BANNED.replace(" ", r"\s+"), re.IGNORECASE)
VERBLESS = re.compile(
    r"(A|An|The|It|Its|They|Their|This|That|These|There|He|She|Not|No|None|Only|Each|All|Every|Same|Also|And|Or|But|Then"
    r"|True|False|Such|What|Who|Whose|Whom|Whether|How|Where|When|Why|Of|By|With|For|From|In|To|On|At|As|If|So)\b"
)
"""The first word of a function's docstring that is no verb, with certainty. A property is not counted: it is a noun."""
WORDS_MIN = 3
"""A literal of fewer words is a name or a tag and no sentence."""
RATES = {
    "told, tell, tells, telling": r"told|tells?|telling",
    "whoever, nobody, somebody, everybody, anybody": r"whoever|nobody|somebody|everybody|anybody",
    "anew, in vain, beside, as ever, towards": r"anew|in\s+vain|besides?|as\s+ever|towards",
    "so many, so long, so often, so much": r"so\s+(?:many|long|often|much)",
    "returns, raises": r"returns?|raises?",
}
"""Words counted in a thousand words of comments and docstrings."""
CONTRACT = "returns, raises"
"""Of these words few are bad; of all others, many."""
ROUNDS_TO_ZERO = 0.05
"""A figure below it is shown as 0.0, which is what an anchor without any such word has."""
HEADLESS_PERCENT_MAX = 3.0
BANNED_MAX = 30
"""The goal for comments and docstrings of the tree compass/."""
ANCHORS = {"h11": "", "websockets": "legacy"}
"""Packages with which the language is compared, and the subfolder that is not measured."""
BUDGET = Path(__file__).parent / "budget.txt"
TEXTS = {"docs": "docs/**/*", "README": "README*", "protocols": "protoc*/**/*", "pages": "compass/**/*"}
"""Files that are no Python: whatever stands in them is counted as a message."""


@dataclass
class Tally:
    """The figures of one package."""

    docstrings: int = 0
    headless: int = 0
    verbless: int = 0
    """Docstrings of functions and methods that do not begin with a verb: a lower bound."""
    banned: int = 0
    """Banned words in comments and docstrings."""
    words: int = 0
    """Words of comments and docstrings."""
    messages: int = 0
    """Banned words in other literals: help texts, log lines, errors, answers to programs."""

    def add(self, other: Tally) -> None:
        """Add another package's figures."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def prose(source: Source) -> list[Text]:
    """The docstrings and comments of a file."""
    return source.docstrings + source.comments


def sentences(source: Source) -> list[Text]:
    """Literals of a file that people may read."""
    return [one for one in source.strings if len(one.text.split()) >= WORDS_MIN]


def is_headless(one: Text) -> bool:
    """Whether a docstring begins with a word that does not say what it is about."""
    return one.kind not in ("comment", "string") and HEADLESS.match(one.text.strip()) is not None


def tally(source: Source) -> Tally:
    """The figures of one file."""
    texts = prose(source)
    return Tally(
        docstrings=len(source.docstrings),
        headless=sum(map(is_headless, texts)),
        verbless=sum(one.kind == "function" and VERBLESS.match(one.text.strip()) is not None for one in texts),
        banned=sum(len(BANNED.findall(one.text)) for one in texts),
        words=sum(len(one.text.split()) for one in texts),
        messages=sum(len(BANNED.findall(one.text)) for one in sentences(source)),
    )


def package_of(source: Source) -> str:
    """The folder below compass/ in which a file lies, however deep; `top` for a file in none."""
    parts = Path(source.name).parts
    return parts[1] if len(parts) > 2 else "top"


def packages(folder: Path = ROOT / "compass") -> dict[str, Tally]:
    """The figures of each package below compass/, and of the pages and templates among them."""
    found: dict[str, Tally] = {}
    for source in sources(folder):
        found.setdefault(package_of(source), Tally()).add(tally(source))
    return found


def text_files(pattern: str) -> list[Path]:
    """Files that are no Python, below the root."""
    kinds = (".md", ".js", ".html", ".css", ".j2", ".mako", ".ini")
    return sorted(path for path in ROOT.glob(pattern) if path.suffix in kinds)


def others() -> dict[str, Tally]:
    """The figures of everything else: tests, documents, and what in compass/ is not Python."""
    found = {name: Tally() for name in ("tests", "bench", "examples")}
    for name, sums in found.items():
        for source in sources(ROOT / name):
            # The gauges spell the words that they count.
            if "tests/style/" not in source.name:
                sums.add(tally(source))
    return found | {name: _texts(pattern) for name, pattern in TEXTS.items()}


def _texts(pattern: str) -> Tally:
    sums = Tally()
    for path in text_files(pattern):
        text = path.read_text("utf-8")
        sums.add(Tally(messages=len(BANNED.findall(text)), words=len(text.split())))
    return sums


def total(rows: dict[str, Tally]) -> Tally:
    """The sum of all packages."""
    sums = Tally()
    for row in rows.values():
        sums.add(row)
    return sums


# The anchors.


def rates(files: list[Source]) -> dict[str, float]:
    """Each figure of RATES for a thousand words, and the share of headless docstrings in percent."""
    texts = [one for source in files for one in prose(source)]
    text = "\n".join(one.text for one in texts)
    words = len(text.split())
    found = {
        name: 1000 * len(re.findall(rf"\b(?:{counted})\b", text, re.IGNORECASE)) / words
        for name, counted in RATES.items()
    }
    docstrings = sum(one.kind != "comment" for one in texts)
    return found | {"headless docstrings, %": 100 * sum(map(is_headless, texts)) / docstrings}


def anchors() -> dict[str, dict[str, float]]:
    """The same of those anchors that are installed."""
    found = {}
    for name, without in ANCHORS.items():
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            print(f"{name} is not installed and is not measured", file=sys.stderr)
            continue
        found[name] = rates(sources(Path(spec.origin).parent, without))
    return found


@dataclass(frozen=True)
class Comparison:
    """One figure of compass beside the greater (of the contract: the lesser) of the anchors'."""

    name: str
    compass: float
    anchor: float

    @property
    def limit(self) -> float:
        """Twice the anchor, or what rounds to its 0.0; half of it where few is bad; the goal where there is one."""
        if self.name == CONTRACT:
            return self.anchor / 2
        goal = HEADLESS_PERCENT_MAX if self.name.startswith("headless") else ROUNDS_TO_ZERO
        return max(2 * self.anchor, goal)

    @property
    def holds(self) -> bool:
        """Whether the figure is within twice the anchor's."""
        return self.compass >= self.limit if self.name == CONTRACT else self.compass <= self.limit

    def __str__(self) -> str:
        within = "within twice" if self.holds else "NOT within twice"
        bound = "at least" if self.name == CONTRACT else "at most"
        return f"{self.name:46} {self.compass:6.1f} {self.anchor:6.1f}   {bound} {self.limit:5.2f}   {within}"


def comparisons(ours: dict[str, float], theirs: dict[str, dict[str, float]]) -> list[Comparison]:
    """Every figure beside the anchors'."""
    found = []
    for name, figure in ours.items():
        choose = min if name == CONTRACT else max
        found.append(Comparison(name, figure, choose(one[name] for one in theirs.values())))
    return found


# The budget: figures that may only fall.


def read_budget(path: Path = BUDGET) -> dict[str, tuple[int, int, int]]:
    """Of each package: docstrings that begin headless, banned words in prose, banned words in messages."""
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: (int(headless), int(banned), int(messages)) for name, headless, banned, messages in lines}


def spent(rows: dict[str, Tally]) -> dict[str, tuple[int, int, int]]:
    """The same of today."""
    return {name: (row.headless, row.banned, row.messages) for name, row in rows.items()}


def write_budget(today: dict[str, tuple[int, int, int]], path: Path = BUDGET) -> None:
    """Lower the budget to the figures of today. A package that is new may bring what another one has lost.

    Raises ValueError if a package, or all together, have more than before.
    """
    before = read_budget(path) if path.exists() else today
    for name in before.keys() & today.keys():
        if any(now > was for now, was in zip(today[name], before[name], strict=True)):
            raise ValueError(f"{name} has more than its budget: {today[name]}, {before[name]}")
    sums = [tuple(map(sum, zip(*rows.values(), strict=True))) for rows in (today, before)]
    if any(now > was for now, was in zip(*sums, strict=True)):
        raise ValueError(f"all together have more than the budget: {sums[0]}, {sums[1]}")
    lines = [f"{name:12}{row[0]:10}{row[1]:10}{row[2]:10}" for name, row in today.items()]
    head = "# Written by `make language ARGS=--lower`: figures that may only fall.\n"
    columns = f"#{'package':11}{'headless':>10}{'banned':>10}{'messages':>10}"
    path.write_text(head + "\n".join([columns, *lines]) + "\n")


# The command.


def table(rows: dict[str, Tally]) -> Iterator[str]:
    """A line for each package."""
    yield f"{'package':12}{'docstrings':>11}{'headless':>15}{'verbless':>10}{'banned':>8}{'messages':>10}{'words':>9}"
    for name, row in rows.items():
        share = f"{row.headless} ({100 * row.headless / row.docstrings:.0f} %)" if row.docstrings else "-"
        documented = f"{row.docstrings or '-':>11}{share:>15}{row.verbless or '-':>10}"
        yield f"{name:12}{documented}{row.banned:>8}{row.messages:>10}{row.words:>9}"


def findings(package: str) -> Iterator[str]:
    """Each headless docstring and each banned word of one row of the table, or of all of compass/ (`all`)."""
    for path in text_files(TEXTS[package]) if package in TEXTS else []:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if found := BANNED.findall(line):
                yield f"{path.relative_to(ROOT)}:{number}: {len(found)}: {line.strip()[:120]}"
    if package not in TEXTS:
        yield from _findings(package)


def _findings(package: str) -> Iterator[str]:
    folder = ROOT / (package if package in ("tests", "bench", "examples") else "compass")
    for source in sources(folder):
        if package not in ("all", folder.name, package_of(source)) or "tests/style/" in source.name:
            continue
        for one in prose(source) + sentences(source):
            words = [found.group() for found in BANNED.finditer(one.text)]
            if is_headless(one):
                words.insert(0, "headless")
            if words:
                yield f"{source.name}:{one.line}: {one.kind}: {', '.join(words)}: {' '.join(one.text.split())[:100]}"


def report() -> Iterator[str]:
    """All tables."""
    ours, beside = packages(), others()
    yield "Docstrings that begin headless; banned words in comments and docstrings, and in messages; words of prose"
    yield from table(ours | {"all": total(ours)} | beside)
    theirs = anchors()
    columns = {"compass": rates(sources(ROOT / "compass"))} | theirs
    yield f"\n{'In a thousand words':46}" + "".join(f"{name:>12}" for name in columns)
    for name in columns["compass"]:
        yield f"{name:46}" + "".join(f"{column[name]:12.1f}" for column in columns.values())
    if theirs:
        yield f"\n{'Beside the anchors':46} {'ours':>6} {'theirs':>6}"
        yield from map(str, comparisons(columns["compass"], theirs))
        most = max(one[CONTRACT] for one in theirs.values())
        yield f"(of {CONTRACT}, half of the greater anchor would be {most / 2:.1f})"
    sums = total(ours)
    share = 100 * sums.headless / sums.docstrings
    yield f"\nheadless docstrings: {share:.1f} %, the goal is below {HEADLESS_PERCENT_MAX:.0f} %"
    yield f"banned words in comments and docstrings: {sums.banned}, the goal is below {BANNED_MAX}"


def main() -> None:
    """Print the tables, or what one package has to correct."""
    parser = argparse.ArgumentParser(prog="python -m tests.style.language", description="Count the language.")
    parser.add_argument("--list", metavar="PACKAGE", help="a row of the table, or all")
    parser.add_argument("--lower", action="store_true", help="write the figures of today into budget.txt")
    given = parser.parse_args()
    if given.lower:
        write_budget(spent(packages() | others()))
    print(*(findings(given.list) if given.list else report()), sep="\n")


if __name__ == "__main__":
    main()
