"""Plants each fault of `faults.py` in a copy of the tree and runs the tests that should notice it.

    python tests/planted_faults/run.py                                  # every fault
    python tests/planted_faults/run.py --only yogi_sign lion_default_decay
    python tests/planted_faults/run.py --tree ../before --out table.md  # another tree's sources

A fault is caught if one of its tests fails, which all pass without it. It is INVALID if that cannot
be told: its text is not in the file exactly once, the changed file does not parse, none of the
tests runs, or they fail in any case. JAX is imported once, and each run is a fork of this process,
so that a fault costs little more than its tests. The exit status is 1 unless all are caught.
"""

import argparse
import ast
import collections
import compileall
import contextlib
import functools
import json
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from faults import FAULTS

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 180.0  # seconds for the tests of one fault
CAUGHT, MISSED, INVALID = "caught", "MISSED", "INVALID"


def copy_tracked(tree, folder):
    """The files that git tracks, as the working tree has them, with their compiled modules."""
    for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=tree, text=True).split("\0"):
        if (tree / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, folder / name)
    compileall.compile_dir(folder / "fnopt", quiet=1)


def warm_up(tree):
    """Imports what most tests do, with the settings of the tree's conftest; starts no backend."""
    os.environ.setdefault("FNOPT_TEST_CACHE", str(Path(tempfile.gettempdir()) / "fnopt-faults"))
    runpy.run_path(str(tree / "tests" / "conftest.py"))
    import chex  # noqa: F401
    import jax._src.xla_bridge as bridge
    import optax  # noqa: F401

    assert not bridge.backends_are_initialized(), "a fork cannot use its parent's backend"
    assert "fnopt" not in sys.modules, "the conftest imports fnopt, which all runs would share"
    command = [sys.executable, "-c", "import fnopt; print(fnopt.__file__)"]
    path = os.environ | {"PYTHONPATH": str(tree)}
    found = Path(subprocess.check_output(command, cwd=tree.parent, env=path, text=True).strip())
    assert found.is_relative_to(tree), f"a program that a test starts would import {found}"


def plant(fault, tree):
    """Changes the file; returns what stands against it, if anything does."""
    file = tree / fault.file
    text = file.read_text() if file.is_file() else ""
    if (count := text.count(fault.old)) != 1:
        return f"the old text occurs {count} times"
    text = text.replace(fault.old, fault.new)
    file.write_text(text)
    try:
        ast.parse(text)
    except SyntaxError as error:
        return f"the changed file does not parse: {error}"


class Record:
    """A plugin of pytest: how many tests ran, which failed first, and why none could run."""

    def __init__(self):
        self.ran, self.failed, self.error = 0, None, None

    def pytest_runtest_logreport(self, report):
        self.ran += report.when == "call" or report.failed
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_collectreport(self, report):
        if report.failed:
            self.error = str(report.longrepr).strip().splitlines()[-1]


def run_pytest(tests, tree, temporary):
    """In a process of its own, which ends here: leaves the verdict and a log in the folder."""
    os.setsid()  # so that what the tests have started ends with it
    log = os.open(temporary / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={temporary / 'tmp'}"]
    record = Record()
    code = pytest.main([*options, *tests], plugins=[record])
    verdict = (CAUGHT, record.failed) if code else (MISSED, "")
    if record.error or not record.ran or code not in (0, 1):
        verdict = INVALID, record.error or f"pytest ran {record.ran} tests, its code was {code:d}"
    elif not all(Path(m.__file__).is_relative_to(tree) for m in [sys.modules.get("fnopt")] if m):
        verdict = INVALID, "the tests imported another fnopt"
    (temporary / "verdict").write_text(json.dumps(verdict))
    os._exit(0)


def ends_in_time(pid):
    """Waits; a process that is late, or is waited for no more, is ended with all it started."""
    end = time.monotonic() + LIMIT
    try:
        while not (done := os.waitpid(pid, os.WNOHANG)[0]) and time.monotonic() < end:
            time.sleep(0.05)
        return bool(done)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def judge(job, pristine):
    """(verdict, reason, seconds) of tests, with a fault or, for None, without."""
    (fault, tests), start = job, time.monotonic()
    with tempfile.TemporaryDirectory(dir=pristine.parent, ignore_cleanup_errors=True) as folder:
        tree = shutil.copytree(pristine, Path(folder) / "tree")
        if fault and (problem := plant(fault, tree)):
            return INVALID, problem, 0.0
        if not (pid := os.fork()):
            run_pytest(tests, tree, Path(folder))
        in_time, file = ends_in_time(pid), Path(folder) / "verdict"
        found = json.loads(file.read_text()) if file.exists() else (INVALID, "the process died")
    return *(found if in_time else (CAUGHT, "the limit of time")), time.monotonic() - start


def run_each(pool, run, jobs):
    """(job, verdict, reason) of each, as it ends; a line of each is printed."""
    for (fault, tests), (verdict, why, seconds) in zip(jobs, pool.imap(run, jobs)):
        what = fault.name if fault else f"without a fault, {' '.join(tests)}"
        word = "pass" if verdict == MISSED and not fault else verdict
        print(f"{seconds:6.1f} s  {what}: {word} {why}", flush=True)
        yield fault or tests, verdict, why


def judge_all(faults, tree, count, check_clean):
    """Each fault with (verdict, reason)."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        pristine = Path(folder).resolve() / "pristine"
        copy_tracked(tree, pristine)
        warm_up(pristine)
        run = functools.partial(judge, pristine=pristine)
        with multiprocessing.get_context("fork").Pool(count) as pool:
            sets = dict.fromkeys(fault.tests for fault in faults) if check_clean else ()
            clean = run_each(pool, run, [(None, tests) for tests in sets])
            broken = {tests: f"without it: {why}" for tests, _, why in clean if why}
            jobs = [(fault, fault.tests) for fault in faults if fault.tests not in broken]
            found = {fault: told for fault, *told in run_each(pool, run, jobs)}
            pool.close()
            pool.join()  # or the workers' time would not be counted
    return {fault: found.get(fault) or (INVALID, broken[fault.tests]) for fault in faults}


def table(found, ending):
    rows = ["| fault | kind | file | caught by |", "|---|---|---|---|"]
    for fault, (verdict, why) in found.items():
        told = f"`{why}`" if verdict == CAUGHT else f"**{verdict}** {why}".strip()
        rows.append(f"| {fault.name} | {fault.kind} | `{fault.file}` | {told} |")
    return "\n".join([*rows, "", ending, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=REPOSITORY, help="the sources and tests")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="some faults")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument("--out", type=Path, help="where to write a table, as Markdown")
    parser.add_argument("--check-clean", action=argparse.BooleanOptionalAction, default=True)
    given, start = parser.parse_args(), time.monotonic()
    known = {fault.name: fault for fault in FAULTS}
    faults = [known[name] for name in given.only or known]
    found = judge_all(faults, given.tree.resolve(), given.jobs, given.check_clean)
    counts = collections.Counter(verdict for verdict, _ in found.values())
    words = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (CAUGHT, MISSED, INVALID))
    ending = f"{len(faults)} faults: {words}."
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    print(f"{ending} {time.monotonic() - start:.0f} s, of the processors {used:.0f} s")
    if given.out:
        given.out.write_text(table(found, ending))
    sys.exit(counts[CAUGHT] < len(faults))


if __name__ == "__main__":
    main()
