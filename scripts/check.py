#!/usr/bin/env python3
"""Everything `make check` runs: format, layers, house rules, headers compiled alone, clang-tidy.

usage: check.py --build DIR [format] [layers] [lint] [headers] [tidy]

DIR is a configured CMake build. Headers and tidy remember what passed, keyed by the content of the file, of
every project header it includes, of the flags and of the tool, so a second run only looks at what changed.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time

CACHE = "build/check-cache"
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.M)
FORMATTED = ["src/*.h", "src/*.cc", "tests/*.h", "tests/*.cc", "bench/*.h", "bench/*.cc", "fuzz/*.cc", "cmake/*.h"]


def listed(*patterns):
    out = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard", *patterns], check=True,
                         capture_output=True).stdout.decode()
    return sorted({path for path in out.split("\0") if path and os.path.isfile(path)})


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)
    return done.returncode, done.stdout


class Inputs:
    """Content hashes of a file together with the project files it includes."""

    def __init__(self, build):
        self.roots = ["src", os.path.join(build, "gen"), "."]
        self.known = {}

    def read(self, path):
        if path not in self.known:
            with open(path, "rb") as source:
                data = source.read()
            found = []
            for name in INCLUDE.findall(data.decode("utf-8", "replace")):
                for root in [*self.roots, os.path.dirname(path)]:
                    target = os.path.normpath(os.path.join(root, name))
                    if os.path.isfile(target):
                        found.append(target)
                        break
            self.known[path] = (hashlib.sha256(data).hexdigest(), found)
        return self.known[path]

    def key(self, path, *extra):
        seen, todo = set(), [path]
        while todo:
            current = todo.pop()
            if current not in seen:
                seen.add(current)
                todo += self.read(current)[1]
        digest = hashlib.sha256("\0".join(extra).encode())
        for name in sorted(seen):
            digest.update(f"{name} {self.read(name)[0]}\n".encode())
        return digest.hexdigest()


def cached_jobs(title, jobs):
    """`jobs`: (name, key, command). Runs those whose key has not passed before; prints what fails."""
    os.makedirs(CACHE, exist_ok=True)
    todo = [job for job in jobs if not os.path.exists(os.path.join(CACHE, job[1]))]
    began, failures, done = time.monotonic(), 0, 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for job, (code, output) in zip(todo, pool.map(lambda job: run(job[2]), todo)):
            done += 1
            if code == 0:
                with open(os.path.join(CACHE, job[1]), "w", encoding="utf-8"):
                    pass
            else:
                failures += 1
                print(f"{title}: {job[0]}\n{output.strip()}", flush=True)
            if sys.stdout.isatty() or done % 25 == 0:
                print(f"{title}: {done}/{len(todo)}", end="\r" if sys.stdout.isatty() else "\n", flush=True)
    print(f"{title}: {len(jobs)} files, {len(todo)} looked at, {failures} bad, {time.monotonic() - began:.0f} s")
    return failures == 0


def check_format(_build):
    files = listed(*FORMATTED)
    code, output = run(["clang-format-19", "--dry-run", "--Werror", *files])
    if code != 0:
        bad = {line.split(":")[0] for line in output.splitlines() if "error:" in line}
        print("\n".join(f"format: {path}" for path in sorted(bad)))
        print("format: run `make fmt`")
    print(f"format: {len(files)} files, {'ok' if code == 0 else 'bad'}")
    return code == 0


def check_script(script):
    def check(_build):
        code, output = run([script])
        print(output.rstrip())
        return code == 0
    return check


def commands_of(build):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as source:
        return json.load(source)


def plain_flags(command):
    """The flags of a compile command without launcher, precompiled header, input and output."""
    words = shlex.split(command)
    words = words[next(i for i, word in enumerate(words) if "clang++" in os.path.basename(word)) + 1:]
    out, index = [], 0
    while index < len(words):
        word = words[index]
        if word in ("-o", "-c", "-include", "-MF", "-MT"):
            index += 2
            continue
        if word == "-Xclang":
            pair = words[index + 1]
            skip = 4 if pair in ("-include-pch", "-include") else 2
            if pair in ("-include-pch", "-include", "-fno-pch-timestamp", "-emit-pch"):
                index += skip
                continue
        if word not in ("-Winvalid-pch", "-MD"):
            out.append(word)
        index += 1
    return out


def check_headers(build):
    inputs, flags, everywhere = Inputs(build), {}, []
    for entry in commands_of(build):
        path = os.path.relpath(entry["file"])
        if path.startswith("src/"):
            flags.setdefault(path.split("/")[1], plain_flags(entry["command"]))
            everywhere = flags[path.split("/")[1]]
    include_proto = ["-isystem", os.path.join(build, "gen")]
    jobs = []
    for path in listed("src/*.h"):
        own = [*flags.get(path.split("/")[1], everywhere), *include_proto, "-iquote", "src", "-Wno-pragma-once-outside-header"]
        command = ["clang++-19", *own, "-fsyntax-only", "-x", "c++", path]
        jobs.append((path, inputs.key(path, "header-1", *command), command))
    return cached_jobs("headers", jobs)


def check_tidy(build):
    with open(".clang-tidy", encoding="utf-8") as source:
        rules = source.read()
    inputs, jobs, seen = Inputs(build), [], set()
    for entry in commands_of(build):
        path = os.path.relpath(entry["file"])
        if not path.startswith("src/") or path in seen:
            continue
        seen.add(path)
        flags = [*plain_flags(entry["command"]), "-Wno-unknown-warning-option"]
        command = ["clang-tidy-19", "--quiet", path, "--", *flags]
        jobs.append((path, inputs.key(path, "tidy-1", rules, *command), command))
    return cached_jobs("tidy", jobs)


CHECKS = {
    "format": check_format,
    "layers": check_script("scripts/check-layers.py"),
    "lint": check_script("scripts/lint.py"),
    "headers": check_headers,
    "tidy": check_tidy,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("checks", nargs="*", choices=[*CHECKS, []])
    options = parser.parse_args()
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    chosen = options.checks or list(CHECKS)
    if {"headers", "tidy"} & set(chosen):
        code, output = run(["cmake", "--build", options.build, "--target", "wrenn_proto"])
        if code != 0:
            print(output)
            return 1
    failed = [name for name in chosen if not CHECKS[name](options.build)]
    passed = len(chosen) - len(failed)
    print(f"check: {passed} passed, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
