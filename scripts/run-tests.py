#!/usr/bin/env python3
"""Runs the test suites and prints "N passed, N failed" as its last line.

usage: run-tests.py --build DIR [--summary FILE] [unit] [conformance] [functional] [firecracker] [firecracker-kills]
                    [firecracker-rest] [firecracker-all]

Without names the first four run. firecracker is the short form of the tests with Firecracker, firecracker-rest what it
leaves out, of which firecracker-kills is a part, firecracker-all both. A suite other than unit is a script that prints
its own "N passed, N failed" as its last such line; one that ends badly without a failed test counts as one failure.
"""
import argparse
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree

SUITES = {
    "unit": (None, 900),
    "conformance": ("tests/conformance/run.sh", 1200),
    "functional": ("tests/functional/run.sh", 2400),
    "firecracker": ("tests/kvmlab/run.sh", 1800),
    "firecracker-kills": ("tests/kvmlab/run.sh kills", 1800),
    "firecracker-rest": ("tests/kvmlab/run.sh rest faults kills powercut", 3000),
    "firecracker-all": ("tests/kvmlab/run.sh rest faults kills drivers powercut", 3000),
}
DEFAULT = ("unit", "conformance", "functional", "firecracker")
COUNT = re.compile(r"^\s*(\d+) passed, (\d+) failed")


def stream(command, env, limit_sec):
    """Runs a command, passing its output on; answers (exit code, last counts or None)."""
    counts = None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               env=env, start_new_session=True)
    timer_fired = False

    def expire():
        nonlocal timer_fired
        timer_fired = True
        os.killpg(process.pid, 15)

    timer = threading.Timer(limit_sec, expire)
    timer.start()
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        match = COUNT.match(line)
        if match:
            counts = (int(match.group(1)), int(match.group(2)))
    code = process.wait()
    timer.cancel()
    if timer_fired:
        print(f"run-tests: {command[0]} took longer than {limit_sec} s and was stopped")
        code = code or 1
    return code, counts


def run_unit(build, limit_sec):
    reports = os.path.join(build, "unit-reports")
    shutil.rmtree(reports, ignore_errors=True)
    os.makedirs(reports)
    env = dict(os.environ, GTEST_OUTPUT="xml:" + os.path.abspath(reports) + "/", GTEST_COLOR="no")
    code, _ = stream(["ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error", "--parallel",
                      str(os.cpu_count())], env, limit_sec)
    passed = failed = 0
    for path in glob.glob(os.path.join(reports, "*.xml")):
        root = ElementTree.parse(path).getroot()
        bad = int(root.get("failures", 0)) + int(root.get("errors", 0))
        skipped = sum(1 for case in root.iter("testcase")
                      if case.find("skipped") is not None or case.get("status") == "notrun")
        failed += bad
        passed += int(root.get("tests", 0)) - bad - skipped
    return code, (passed, failed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--summary")
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []])
    options = parser.parse_args()
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

    total_passed = total_failed = 0
    lines = []
    for name in options.suites or DEFAULT:
        script, limit_sec = SUITES[name]
        print(f"== {name}", flush=True)
        began = time.monotonic()
        if script is None:
            code, counts = run_unit(options.build, limit_sec)
        else:
            env = dict(os.environ, WRENN_BUILD=os.path.abspath(options.build))
            code, counts = stream(script.split(), env, limit_sec)
        passed, failed = counts or (0, 0)
        if failed == 0 and (code != 0 or passed == 0):
            failed = 1
            print(f"run-tests: {name} ended with exit code {code} and {passed} passed tests")
        lines.append(f"{name}: {passed} passed, {failed} failed in {time.monotonic() - began:.0f} s")
        total_passed += passed
        total_failed += failed
    print("\n".join(lines))
    print(f"{total_passed} passed, {total_failed} failed")
    if options.summary:
        with open(options.summary, "w", encoding="ascii") as out:
            out.write(f"{total_passed} {total_failed}\n")
    return 1 if total_failed else 0


if __name__ == "__main__":
    sys.exit(main())
