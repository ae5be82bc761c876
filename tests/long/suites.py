#!/usr/bin/env python3
"""Runs test suites of other projects under libmtr.so: no test may fail that passes without it, and no
trace that its processes leave may show a fault, be incomplete or not be readable.

    suites.py [--library FILE] [--report FILE] [--traces N] [--only NAME,...] [--formats compact,mtrace] [--work FOLDER]
              [--python PYTHON] [--python-path FOLDER] [--git FOLDER] [--git-scripts PATTERN,...]
              [--sqlite FOLDER] [--sqlite-tests PATTERN,...] [--minutes N]

--python-path is a folder with CPython's package `test` (Debian: libpython3-testsuite), --git a built
source tree of git, --sqlite a source tree of SQLite in which `make testfixture` was run. What a
machine lacks is skipped with a line. A test that fails under the library is run up to three times
without it: only what passes each time is a difference. Of more than N traces (default: 200) the
largest are read and some of the others.
"""

import argparse
import concurrent.futures
import fnmatch
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

REPOSITORY = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))

CPYTHON = """test_json test_gc test_fork1 test_mmap test_posix test_os test_capi test_faulthandler
test_subprocess test_io test_signal test_asyncio test_threading test_socket test_ctypes test_sqlite3
test_multiprocessing_fork test_multiprocessing_spawn test_multiprocessing_forkserver
test_concurrent_futures test_selectors test_pty test_zlib test_pickle test_re test_hashlib""".split()

# Patterns: of git's scripts, and of SQLite's tests.
GIT = """t0000-* t0060-* t1300-* t3200-* t3400-* t3903-* t4013-* t5300-* t5500-* t5510-* t6030-*
t7004-* t7600-* t7810-* t9300-*"""
SQLITE = """alter* analyze* backup* bigfile* bind* btree* capi* fault* fts3a* index* insert* journal*
join* lock* malloc* memsubsys* mutex* pager* rtree* select* shared* thread* trans* vtab* wal*"""

PAGE = """<div id=x></div><script>let a = []; for (let i = 0; i < 20000; i++) a.push({i});
document.getElementById('x').textContent = 'sum ' + a.reduce((s, o) => s + o.i, 0)</script>"""


class Suite:
    """A program that is run in a folder of its own; `failures` finds the tests that failed."""

    def __init__(self, name, command, failures, count=None, environment=None, prepare=None):
        self.name, self.command, self.find_failures = name, command, failures
        self.count, self.environment = count, environment or {}
        self.prepare = prepare or (lambda folder: None)

    def run(self, options, trace_format):
        """The failures, what is wrong with the traces, number of tests, seconds, megabytes."""
        folder = tempfile.mkdtemp(prefix="run-", dir=options.work)
        traces, inside = os.path.join(folder, "traces"), os.path.join(folder, "inside")
        os.mkdir(traces), os.mkdir(inside)
        self.prepare(inside)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MTR_", "LD_"))}
        environment.update(self.environment)
        if trace_format:
            environment.update(LD_PRELOAD=options.library, MTR_TRACE_FORMAT=trace_format,
                               MTR_OUTPUT=os.path.join(traces, "t"))
        command = [part.replace("{inside}", inside) for part in self.command]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=inside, env=environment, text=True, errors="replace",
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=options.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            output += "\nFAIL: (no end)\n"
        seconds = time.monotonic() - start
        failures = self.find_failures(output, process.returncode)
        size = sum(os.path.getsize(os.path.join(traces, name)) for name in os.listdir(traces))
        wrong, read = check_traces(traces, options)
        kind = trace_format or "plain"
        with open(os.path.join(options.work, f"{self.name}.{kind}.out"), "w") as file:
            file.write(output)
        if wrong:
            # Kept for a look.
            shutil.rmtree(inside, ignore_errors=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        number = self.count(output) if self.count else 1
        return failures, wrong, number, seconds, size >> 20, read


def check_traces(folder, options):
    """What is wrong with the traces in a folder, and how many were read."""
    names = [name for name in os.listdir(folder)
             if not name.endswith(".tail") and not name.startswith(".")]
    paths = sorted((os.path.join(folder, name) for name in names), key=os.path.getsize, reverse=True)
    if len(paths) > options.traces:
        largest, others = paths[:options.traces // 2], paths[options.traces // 2:]
        chance = random.Random(len(paths))
        paths = largest + chance.sample(others, options.traces - len(largest))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda path: check_trace(path, options), paths)
        return {f"{path}: {what}" for path, what in zip(paths, found) if what}, len(paths)


def check_trace(path, options):
    """What is wrong with a trace; `None` for nothing."""
    try:
        report = subprocess.run([options.report, "--strict", "--top=3", path], capture_output=True,
                                text=True, errors="replace", timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return "mtr-report did not come to an end"
    text = " ".join(report.stdout.split())
    if faults := re.search(r"^[\d,]+ faults?:$.*", report.stdout, re.M | re.S):
        return faults.group(0)
    # The line that a thread had in hand when its process was killed.
    is_killed = "ended by a signal" in text and "only in part" in text and "missing" not in text
    if report.returncode == 0 or report.returncode == 3 and is_killed:
        return None
    notes = text.partition("Notes: ")[2]
    return f"mtr-report: {report.returncode}: {report.stderr.strip() or notes}"


def unittest_failures(output, status):
    failed = set(re.findall(r"^(?:FAIL|ERROR): (.*)$", output, re.M))
    return failed or ({f"exit status {status}"} if status else set())


def unittest_count(output):
    return sum(int(n) for n in re.findall(r"^Ran (\d+) tests?", output, re.M))


def tap_failures(output, status):
    lines = re.findall(r"^not ok (\d+ - .*)$", output, re.M)
    failed = {line for line in lines if "# TODO" not in line}
    return failed or ({f"exit status {status}"} if status else set())


def tap_count(output):
    return len(re.findall(r"^(?:not )?ok \d+ ", output, re.M))


def sqlite_failures(output, status):
    failed = set(re.findall(r"^! (\S+) (?:expected|got)", output, re.M))
    if not re.search(r"^\d+ errors out of \d+ tests", output, re.M):
        failed.add(f"exit status {status}, no summary")
    return failed or ({f"exit status {status}"} if status else set())


def sqlite_count(output):
    return sum(int(n) for n in re.findall(r"^\d+ errors out of (\d+) tests", output, re.M))


def by_status(output, status):
    return {f"exit status {status}"} if status else set()


def cpython(options):
    path = {"PYTHONDONTWRITEBYTECODE": "1"}
    if options.python_path:
        path["PYTHONPATH"] = options.python_path
    has = subprocess.run([options.python, "-c", "import test.test_json"], capture_output=True,
                         env=os.environ | path).returncode == 0
    if not has:
        print("cpython: skipped, the package `test` is not installed")
        return
    for name in CPYTHON:
        command = [options.python, "-m", "test", "-v", name]
        yield Suite(name, command, unittest_failures, unittest_count, path)


def git(options):
    if not options.git or not os.path.exists(os.path.join(options.git, "git")):
        print("git: skipped, no built source tree is given (--git)")
        return
    scripts = matching(f"{options.git}/t", options.git_scripts, "t[0-9]*", ".sh")
    for name in scripts:
        script = f"cd {options.git}/t && ./{name}.sh --root={{inside}}"
        yield Suite(name, ["sh", "-c", script], tap_failures, tap_count)


def sqlite(options):
    if not options.sqlite or not os.path.exists(os.path.join(options.sqlite, "testfixture")):
        print("sqlite: skipped, no source tree with a testfixture is given (--sqlite)")
        return
    names = matching(f"{options.sqlite}/test", options.sqlite_tests, "*", ".test")
    for name in (name for name in names if not name.lower().endswith("all")):
        command = [f"{options.sqlite}/testfixture", f"{options.sqlite}/test/{name}.test"]
        yield Suite(name, command, sqlite_failures, sqlite_count)


def matching(folder, patterns, kind, suffix):
    """Names of files in `folder`, without their suffix, that match one of `patterns`."""
    names = [name[:-len(suffix)] for name in sorted(os.listdir(folder))
             if fnmatch.fnmatch(name, kind + suffix)]
    return [name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)]


def cargo(options):
    if not shutil.which("cargo"):
        print("cargo: skipped, there is none")
        return
    command = ["cargo", "build", "--offline", "--manifest-path", f"{REPOSITORY}/Cargo.toml", "-p",
               "mtr-preload", "--release", "--target-dir", "{inside}/target"]
    yield Suite("cargo-build", command, by_status)


def browser(options):
    found = [b for b in ("/usr/lib/chromium/chromium", "chromium") if shutil.which(b)]
    if not found:
        print("browser: skipped, there is no chromium")
        return

    def prepare(folder):
        with open(os.path.join(folder, "page.html"), "w") as file:
            file.write(PAGE)

    def failures(output, status):
        shown = "sum 199990000" in output
        return by_status(output, status) | (set() if shown else {"the page was not shown"})

    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    for name, more in [("chromium", sandbox), ("chromium-one-process", ["--no-sandbox",
                                                                      "--single-process"])]:
        command = [found[0], "--headless", "--disable-gpu", *more, "--user-data-dir={inside}/user",
                   "--dump-dom", "file://{inside}/page.html"]
        yield Suite(name, command, failures, prepare=prepare)


def compare(suite, trace_format, options):
    failed, wrong, number, seconds, size, read = suite.run(options, trace_format)
    again = 0
    if failed:
        # What a run without the library, or another one with it, does not share is chance.
        for again in range(1, 4):
            failed -= suite.run(options, None)[0]
            if not failed:
                break
        if failed:
            failed &= suite.run(options, trace_format)[0]
    verdict = f"{len(failed)} DIFFERENCES" if failed else "same"
    verdict += f", {len(wrong)} WRONG TRACES" if wrong else ""
    print(f"{suite.name:32} {trace_format:8} {number:5} tests {seconds:7.1f} s {size:6} MB "
          f"{read:4} traces {again} plain runs: {verdict}", flush=True)
    for line in sorted(failed) + sorted(wrong):
        print(f"    {line}", flush=True)
    return number, len(failed) + len(wrong)


def words(text):
    return text.replace(",", " ").split()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", default=f"{REPOSITORY}/target/release/libmtr.so")
    parser.add_argument("--report", default=f"{REPOSITORY}/target/release/mtr-report")
    parser.add_argument("--traces", type=int, default=200)
    parser.add_argument("--only", default="")
    parser.add_argument("--formats", default="compact,mtrace")
    parser.add_argument("--work", default=None)
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--python-path", default=None)
    parser.add_argument("--git", default=None)
    parser.add_argument("--git-scripts", default=GIT, type=words)
    parser.add_argument("--sqlite", default=None)
    parser.add_argument("--sqlite-tests", default=SQLITE, type=words)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--timeout", type=float, default=900)
    options = parser.parse_args()
    options.work = options.work or tempfile.mkdtemp(prefix="mtr-suites-")
    os.makedirs(options.work, exist_ok=True)
    # A build meanwhile must not change it under the programs that have it mapped.
    options.library = shutil.copy(options.library, os.path.join(options.work, "libmtr.so"))
    options.report = shutil.copy(options.report, os.path.join(options.work, "mtr-report"))
    only = [name for name in options.only.split(",") if name]
    end = time.monotonic() + 60 * options.minutes
    totals = {name: [0, 0, 0] for name in options.formats.split(",")}
    for suite in (s for group in (cpython, git, sqlite, cargo, browser) for s in group(options)):
        if only and suite.name not in only:
            continue
        for trace_format, total in totals.items():
            if time.monotonic() > end:
                print(f"{suite.name}: not run, the time is up")
                continue
            number, differences = compare(suite, trace_format, options)
            total[0], total[1], total[2] = total[0] + 1, total[1] + number, total[2] + differences
    for trace_format, (suites, number, differences) in totals.items():
        print(f"{trace_format}: {suites} suites, {number} tests, {differences} differences")
    print(f"output: {options.work}")
    return any(total[2] for total in totals.values())


if __name__ == "__main__":
    sys.exit(main())
