"""Processor seconds of the test suite, by file, law, fixture and worker.

    python tests/suite_costs.py [--rows 40] [-- pytest arguments]

Runs pytest with this file as a plugin and prints Markdown tables. Seconds are a worker's own and
those of the processes that it started and waited for. Other work on the machine inflates them.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

FOLDER = "FNOPT_SUITE_COSTS"


def seconds():
    """Processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


# The plugin, in each worker


def record(kind, name, start, began=None):
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    row = {"kind": kind, "name": name, "seconds": seconds() - start, "worker": worker}
    with (Path(os.environ[FOLDER]) / f"{worker}.jsonl").open("a") as file:
        file.write(json.dumps(row | {"began": began, "ended": time.time()}) + "\n")


def pytest_collection_finish(session):
    record("collection", f"{len(session.items)} tests", 0.0)
    laws = sys.modules.get("fnopt.testing.laws.law")
    if laws is not None and not hasattr(laws.Law.judge, "measured"):
        judge = laws.Law.judge

        def measured(self, build):
            start = seconds()
            try:
                return judge(self, build)
            finally:
                record("law", self.code, start)

        measured.measured = True
        laws.Law.judge = measured


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef, request):
    start = seconds()
    try:
        return (yield)
    finally:
        if seconds() - start > 0.05:
            record("fixture", f"{fixturedef.baseid}::{fixturedef.argname}", start)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    start, began = seconds(), time.time()
    try:
        return (yield)
    finally:
        record("test", item.nodeid, start, began)


# The report


def table(title, rows, limit):
    """A Markdown table of (name, seconds) rows, those that cost most first."""
    total, count = collections.Counter(), collections.Counter()
    for name, cost in rows:
        total[name] += cost
        count[name] += 1
    lines = [f"| {title} | seconds | number |", "|---|---|---|"]
    lines += [f"| {name} | {cost:.1f} | {count[name]} |" for name, cost in total.most_common(limit)]
    rest = sum(total.values()) - sum(cost for _, cost in total.most_common(limit))
    lines += [f"| {len(total) - limit} others | {rest:.1f} | |"] if len(total) > limit else []
    return "\n".join([*lines, f"| all | {sum(total.values()):.1f} | {sum(count.values())} |", ""])


def report(folder, limit):
    rows = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.open()]

    def of(kind, name=lambda row: row["name"]):
        return [(name(row), row["seconds"]) for row in rows if row["kind"] == kind]

    yield table("file", of("test", lambda row: row["name"].split("::")[0]), limit)
    yield table("law", of("law"), limit)
    yield table("fixture", of("fixture"), limit)
    yield table("test", of("test"), limit)
    yield table("collection", of("collection", lambda row: row["worker"]), limit)
    tests = [row for row in rows if row["kind"] == "test"]
    start = min(row["began"] for row in tests)
    ends = collections.defaultdict(float)
    for row in tests:
        ends[row["worker"]] = max(ends[row["worker"]], row["ended"] - start)
    yield "\n".join(
        f"{worker} ended {end:.0f} s after the first test began"
        for worker, end in sorted(ends.items())
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40, help="rows of each table")
    parser.add_argument("pytest", nargs="*", help="pytest's arguments, after --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {FOLDER: folder, "PYTHONPATH": os.pathsep.join(paths)}
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "suite_costs",
            *(args.pytest or ["-n", "auto"]),
        ]
        code = subprocess.run(words, env=environment).returncode
        print(*report(Path(folder), args.rows), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
