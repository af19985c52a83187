"""bench/lifecycle: see docs/benchmarks.md for the method."""
import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time

import floor
from harness import leaks
from harness.system import System
from measure import Rest, in_parallel, summary, timed

COMMAND = ("echo", ["ready"])
TARGETS = {"create_exec_p50_ms": 400, "create_ratio": 1.5, "pause_idle_p50_ms": 200, "resume_ratio": 1.5,
           "private_mib_per_idle_sandbox": 40, "programs_rss_mib": 60}


def one_life(rest):
    create, sandbox_id = timed(rest.create)
    first_exec, _ = timed(rest.exec, sandbox_id, *COMMAND)
    second_exec, _ = timed(rest.exec, sandbox_id, *COMMAND)
    pause, _ = timed(rest.pause, sandbox_id)
    resume, _ = timed(rest.resume, sandbox_id)
    resumed_exec, _ = timed(rest.exec, sandbox_id, *COMMAND)
    destroy, _ = timed(rest.destroy, sandbox_id)
    return {"create": create, "first_exec": first_exec, "create_exec": create + first_exec, "second_exec": second_exec,
            "pause": pause, "resume": resume, "resume_exec": resume + resumed_exec, "destroy": destroy}


def measure_lives(system, n, parallel):
    def make_worker():
        rest = Rest(system)
        return lambda: one_life(rest)

    return summary(in_parallel(n, parallel, make_worker))


def measure_dirty(system, n):
    """Pause and resume against the memory the guest wrote, and the bytes the snapshot takes."""
    rest = Rest(system)
    out = {}
    for mib in (0, 64, 256):
        samples, stored = [], []
        for _ in range(n):
            sandbox_id = rest.create()
            if mib:
                rest.exec(sandbox_id, "bash", ["-c", f"mount -o remount,size=400M /dev/shm; head -c {mib}M /dev/zero > /dev/shm/x"])
            else:
                rest.exec(sandbox_id, *COMMAND)
            time.sleep(0.5)
            pause, _ = timed(rest.pause, sandbox_id)
            stored.append(os.stat(f"{system.snapshots}/{sandbox_id}/pages").st_size / 2**20)
            resume, _ = timed(rest.resume, sandbox_id)
            samples.append({"pause": pause, "resume": resume})
            rest.destroy(sandbox_id)
        out[str(mib)] = {**summary(samples), "pages_mib": round(statistics.median(stored), 1)}
    return out


def smaps(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as text:
        return {name: int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", text.read(), re.M)}


def private_mib(pid):
    """What one more VM costs."""
    each = smaps(pid)
    return (each["Private_Dirty"] + each["Private_Clean"]) / 1024


def measure_many(system, count):
    """Sandboxes at once: wall time until each has answered a command, and the memory of each at rest."""
    ids, lock = [], threading.Lock()

    def make_worker():
        rest = Rest(system)

        def one():
            sandbox_id = rest.create()
            rest.exec(sandbox_id, *COMMAND)
            with lock:
                ids.append(sandbox_id)
        return one

    wall, _ = timed(in_parallel, count, count, make_worker)
    time.sleep(3)
    pids = [pid for each in leaks.vm_processes().values() for pid in each]
    maps, private = [smaps(pid) for pid in pids], [private_mib(pid) for pid in pids]
    rest = Rest(system)
    for sandbox_id in ids:
        rest.destroy(sandbox_id)
    return {"count": len(ids), "wall_sec": round(wall, 2), "pss_mib_p50": round(statistics.median(m["Pss"] for m in maps) / 1024, 1),
            "private_mib_p50": round(statistics.median(private), 1), "private_mib_max": round(max(private), 1),
            "rss_mib_p50": round(statistics.median(m["Rss"] for m in maps) / 1024, 1)}


def judge(result, levels):
    """The promised numbers against the measured ones."""
    one = result["rest"][str(levels[0])]
    found = {"create_exec_p50_ms": one["create_exec"]["p50"], "pause_idle_p50_ms": one["pause"]["p50"],
             "private_mib_per_idle_sandbox": result["many"]["private_mib_p50"],
             "programs_rss_mib": result["programs_rss_mib"]["together"]}
    if "floor" in result:
        total = result["floor"][str(levels[0])]["total"]["p50"]
        found["create_ratio"] = round(one["create_exec"]["p50"] / total, 2)
        found["resume_ratio"] = round(one["resume_exec"]["p50"] / total, 2)
    return {name: {"target": TARGETS[name], "measured": value, "ok": value <= TARGETS[name]} for name, value in found.items()}


def show(result):
    for part in ("floor", "rest"):
        for parallel, steps in result.get(part, {}).items():
            print(f"\n{part}, {parallel} at once (ms)           p50       p95       p99     n")
            for step, values in steps.items():
                print(f"  {step:28} {values['p50']:9} {values['p95']:9} {values['p99']:9} {values['n']:5}")
    print("\ndirty MiB    pause p50    resume p50 (ms)    stored MiB")
    for mib, values in result["dirty"].items():
        print(f"{mib:>9} {values['pause']['p50']:12} {values['resume']['p50']:13} {values['pages_mib']:17}")
    print("\nmany:", result["many"])
    print("programs, idle RSS MiB:", result["programs_rss_mib"])
    print("\ntargets:")
    for name, each in result["targets"].items():
        print(f"  {'ok    ' if each['ok'] else 'MISSED'} {name}: {each['measured']} (at most {each['target']})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--dirty-n", type=int, default=10)
    parser.add_argument("--parallel", default="1,5,20")
    parser.add_argument("--many", type=int, default=20)
    parser.add_argument("--skip-floor", action="store_true")
    options = parser.parse_args()
    levels = [int(text) for text in options.parallel.split(",")]

    system = System(driver=os.environ.get("AGENT_DRIVER", "auto"))
    folder = tempfile.mkdtemp(dir=os.path.dirname(system.root), prefix="bench-")
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    try:
        say("starting the system")
        system.start()
        time.sleep(5)
        rss = {program.name: round(program.rss_bytes() / 2**20, 1) for program in (system.cp, system.agent)}
        result = {"machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
                  "programs_rss_mib": {**rss, "together": round(sum(rss.values()), 1)}, "rest": {}}
        measure_lives(system, 3, 1)  # caches
        if not options.skip_floor:
            recipe = floor.prepare(system, folder)
            result["floor"] = {}
        for parallel in levels:
            if not options.skip_floor:
                say(f"floor, {parallel} at once")
                result["floor"][str(parallel)] = summary(floor.measure(recipe, options.n, parallel, COMMAND))
            say(f"REST, {parallel} at once")
            result["rest"][str(parallel)] = measure_lives(system, options.n, parallel)
        say("pause against dirty memory")
        result["dirty"] = measure_dirty(system, options.dirty_n)
        say(f"{options.many} sandboxes at once")
        result["many"] = measure_many(system, options.many)
        result["targets"] = judge(result, levels)
    except BaseException:
        say(system.tails())
        raise
    finally:
        left = system.stop()
        shutil.rmtree(folder, ignore_errors=True)
    if left:
        say("left behind: " + "; ".join(left))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
