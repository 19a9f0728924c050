"""Write two pages in docs/explanation and their plots from bench/results.json: `make bench-page`.

`page.md` becomes the summary, benchmarks.md; `tables.md` becomes its appendix, benchmark-tables.md. `@NAME@` in either
stands for what is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import msgspec

from bench.sizes import Needs, costs_of, needs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results.json"
DOCS = ROOT / "docs" / "explanation"
PAGES = {"page.md": DOCS / "benchmarks.md", "tables.md": DOCS / "benchmark-tables.md"}
"""The page that is made of each template."""
PLOTS = DOCS / "benchmarks"
OURS, THEIRS = "#1f6f8b", "#b9b9b9"

Row = dict[str, Any]


def main() -> None:
    """Read, plot, write."""
    told = msgspec.json.decode(RESULTS.read_bytes())
    rows: list[Row] = told["results"]
    PLOTS.mkdir(exist_ok=True)
    _plot_all(rows)
    values = {
        "machine": _machine(told),
        "goals": _goals(told["goals"]),
        "met": f"{sum(goal['verdict'] == 'met' for goal in told['goals'])} of {len(told['goals'])}",
        "unmet": _goals([goal for goal in told["goals"] if goal["verdict"] != "met"]),
        "summary": _summary(rows),
        "paths": _paths(rows),
        "sizes": _sizes(rows),
        **{name: _value(rows, *wanted) for name, wanted in FIGURES.items()},
        "growth": _growth(told["goals"]),
        **{name: _table(rows, workload) for name, workload in WORKLOADS.items()},
    }
    for template, page in PAGES.items():
        text = Path(__file__).with_name(template).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        page.write_text(text)


WORKLOADS = {
    "B1": "B1 registrations",
    "B2": "B2 fan-out",
    "B3": "B3 lists",
    "B4": "B4 cold start",
    "B4r": "B4 cold start, resumed",
    "B5": "B5 idle",
    "B6": "B6 lookups",
    "B7": "B7 killed process",
    "B7r": "B7 report",
    "B8": "B8 registrations",
    "B8l": "B8 lists",
    "B8f": "B8 fan-out",
    "B9": "B9 start",
}


SYSTEMS = ("compass", "compass (PostgreSQL)", "etcd", "ZooKeeper", "Redis", "NATS")
SUMMARY = {
    "B1 registrations a second, 64 clients": ("B1 registrations", "rate", 64),
    "B2 one change to 10,000 watchers, ms to the last": ("B2 fan-out", "to the last", 10_000),
    "B2 memory a session, kB": ("B2 fan-out", "memory a session", 10_000),
    "B3 lists of 10 services a second": ("B3 lists", "rate", 64),
    "B4 10,000 hosts connect at once, s": ("B4 cold start", "all in step", 10_000),
    "B5 10,000 idle sessions, % of a core": ("B5 idle", "cpu", 10_000),
}
"""Rows of the summary: workload, metric and clients."""
FIGURES = {
    "library": ("B6 lookups", "compass library", "p50", 1),
    "dns": ("B6 lookups", "compass DNS, same core", "p50", 1),
    "dnsmasq": ("B6 lookups", "dnsmasq, same core", "p50", 1),
    "killed": ("B7 killed process", "compass", "to the last", 1_000),
    "start": ("B9 start", "compass", "start to ready", 100_000),
}
"""Figures in the text of the summary: workload, system, metric and clients."""


def _summary(rows: Sequence[Row]) -> str:
    columns = [(system, tls) for system in SYSTEMS for tls in (False, True)]
    columns = [column for column in columns if any((row["system"], row["tls"]) == column for row in rows)]
    names = [f"{system}, TLS" if tls else system for system, tls in columns]
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---|" * len(columns)]
    for title, (workload, metric, clients) in SUMMARY.items():
        cells = [_median_of(rows, workload, system, metric, clients, tls=tls) for system, tls in columns]
        lines.append(f"| {title} | {' | '.join('–' if cell is None else _figure(cell) for cell in cells)} |")
    return "\n".join(lines)


def _median_of(
    rows: Sequence[Row], workload: str, system: str, metric: str, clients: int, *, tls: bool
) -> float | None:
    wanted = (workload, system, metric, clients, tls)
    found = [r for r in rows if (r["workload"], r["system"], r["metric"], r["clients"], r["tls"]) == wanted]
    return found[0]["median"] if found else None


def _value(rows: Sequence[Row], workload: str, system: str, metric: str, clients: int) -> str:
    wanted = (workload, system, metric, clients)
    found = [r for r in rows if (r["workload"], r["system"], r["metric"], r["clients"]) == wanted]
    return f"{_figure(found[0]['median'])} {found[0]['unit']}" if found else "(not measured)"


def _growth(goals: Sequence[dict[str, Any]]) -> str:
    found = [goal["value"] for goal in goals if goal["goal"].startswith("cost of registrations") and goal["value"]]
    return _figure(found[0]) if found else "(not measured)"


def _machine(told: dict[str, Any]) -> str:
    about, versions = told["machine"], told["versions"]
    programs = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return (
        f"{about['cores']} cores of {about['processor']}, {about['memory_gib']} GiB, Linux {about['kernel']}, "
        f"Python {about['python']}; {programs}."
    )


def _goals(goals: Sequence[dict[str, Any]]) -> str:
    lines = ["| | goal | bound | measured | |", "|---|---|---|---|---|"]
    for goal in goals:
        value = "" if goal["value"] is None else _figure(goal["value"])
        sign = "at least" if goal.get("least") else "at most"
        verdict = f"**{goal['verdict']}**" if goal["verdict"] != "met" else "met"
        lines.append(f"| {goal['workload']} | {goal['goal']} | {sign} {_figure(goal['bound'])} | {value} | {verdict} |")
    return "\n".join(lines)


def _table(rows: Sequence[Row], workload: str) -> str:
    found = [row for row in rows if row["workload"] == workload and row["metric"] != "generator"]
    if not found:
        return "(not measured in this run)"
    lines = ["| clients | system | metric | median | min to max | |", "|---|---|---|---|---|---|"]
    for row in found:
        name = f"{row['system']}{' (TLS)' if row['tls'] else ''}"
        spread = f"{_figure(row['min'])} to {_figure(row['max'])}"
        value = f"{_figure(row['median'])} {row['unit']}"
        lines.append(f"| {row['clients']:,} | {name} | {row['metric']} | {value} | {spread} | {row['note']} |")
    return "\n".join(lines)


def _paths(rows: Sequence[Row]) -> str:
    lines = ["| fast path | load | metric | with it | without | gain |", "|---|---|---|---|---|---|"]
    for workload in dict.fromkeys(row["workload"] for row in rows if row["workload"].startswith("Fast path")):
        name, _, load = workload.removeprefix("Fast path: ").rstrip(")").partition(" (")
        for row in (row for row in rows if row["workload"] == workload and row["system"] == "compass"):
            without = next(r for r in rows if _is_without(r, row))
            if row["metric"] == "generator":
                continue
            more_is_better = row["metric"] == "rate"
            pair = (row["median"], without["median"])
            gain = (pair[0] / pair[1] if more_is_better else pair[1] / pair[0]) - 1
            cells = (name, load, row["metric"], f"{_figure(pair[0])} {row['unit']}", _figure(pair[1]), f"{gain:+.0%}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "(not measured in this run)"


def _is_without(row: Row, ours: Row) -> bool:
    same = (row["workload"], row["metric"]) == (ours["workload"], ours["metric"])
    return same and row["system"] == "compass without"


def _sizes(rows: Sequence[Row]) -> str:
    costs = costs_of(list(rows))
    if costs is None:
        return "(not measured in this run)"
    columns = [needs(costs, 10_000, 1), needs(costs, 100_000, 10), needs(costs, 1_000_000, 50)]
    measured = {
        "change_to_last_ms": _median(rows, "B2 fan-out", "to the last"),
        "start_seconds": _median(rows, "B4 cold start", "all in step"),
        "memory_mb": _median(rows, "B5 idle", "memory"),
    }
    lines = ["| for each server | " + " | ".join(f"{n.hosts:,} hosts, {n.servers}" for n in columns) + " | measured |"]
    lines.append("|---|" + "---|" * (len(columns) + 1))
    for field in NEEDS:
        cells = [_figure(getattr(column, field)) for column in columns]
        found = measured.get(field)
        lines.append(f"| {NEEDS[field]} | {' | '.join(cells)} | {'' if found is None else _figure(found)} |")
    return "\n".join(lines)


NEEDS = {
    "sessions": "sessions",
    "memory_mb": "memory, MB",
    "notices_a_second": "notices a second",
    "cpu_share": "of a core, for notices",
    "bandwidth_kbit": "bandwidth, kbit/s",
    "change_to_last_ms": "a change that concerns all: to the last, ms",
    "start_seconds": "all hosts come at once, s",
    "loss_seconds": "one server is lost: its hosts are back, s",
}
assert NEEDS.keys() <= set(Needs.__struct_fields__)


def _median(rows: Sequence[Row], workload: str, metric: str) -> float | None:
    found = [
        r for r in rows if (r["workload"], r["system"], r["metric"], r["tls"]) == (workload, "compass", metric, True)
    ]
    large = max(found, key=lambda row: row["clients"], default=None)
    return None if large is None or large["clients"] != 10_000 else large["median"]


def _plot_all(rows: Sequence[Row]) -> None:
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "compass"
    plots = {
        "registrations": ("B1 registrations", "rate", "durable registrations a second"),
        "fan-out": ("B2 fan-out", "to the last", "one change to all watchers: ms to the last"),
        "lists": ("B3 lists", "rate", "lists of 10 services a second"),
        "memory": ("B2 fan-out", "memory a session", "memory a session, kB"),
        "lookups": ("B6 lookups", "p50", "one lookup on the host: us"),
    }
    for name, (workload, metric, title) in plots.items():
        found = [row for row in rows if row["workload"] == workload and row["metric"] == metric]
        if found:
            _bars(found, title, PLOTS / f"{name}.svg", logarithmic=name == "lookups")


def _bars(rows: Sequence[Row], title: str, path: Path, *, logarithmic: bool) -> None:
    from matplotlib import pyplot

    clients = sorted({row["clients"] for row in rows})
    figure, axes = pyplot.subplots(1, len(clients), figsize=(4.2 * len(clients), 3.4), squeeze=False, layout="tight")
    for axis, number in zip(axes[0], clients, strict=True):
        some = [row for row in rows if row["clients"] == number]
        names = [f"{row['system']}{' TLS' if row['tls'] else ''}" for row in some]
        colours = [OURS if row["system"].startswith("compass") else THEIRS for row in some]
        medians = [row["median"] for row in some]
        spread = [[r["median"] - r["min"] for r in some], [r["max"] - r["median"] for r in some]]
        axis.barh(names, medians, xerr=spread, color=colours, ecolor="#555555")
        axis.invert_yaxis()
        if logarithmic:
            axis.set_xscale("log")
        if len(clients) > 1:
            axis.set_title(f"{number:,}", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


if __name__ == "__main__":
    main()
