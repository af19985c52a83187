"""bench/drivers: see docs/benchmarks.md for the method."""
import argparse
import json
import re
import statistics
import sys
import time

from harness import leaks
from harness.system import System
from lifecycle_main import measure_lives, private_mib
from measure import Rest, in_parallel, summary, timed

DRIVERS = ("qemu-kvm", "firecracker")


def overhead_mib(pid, ram_mib=512):
    """What a VMM has of its own beside the guest's memory: that is mapped from /memory, or is as big as it."""
    total, of_guest = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as text:
        for line in text:
            mapping = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
            if mapping:
                size = int(mapping.group(2), 16) - int(mapping.group(1), 16)
                of_guest = line.rstrip().endswith("/memory") or size == ram_mib << 20
            elif not of_guest and line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1])
    return total / 1024


def complaints(system):
    """What the agent warned of."""
    with open(system.agent.log_path, encoding="utf-8", errors="replace") as log:
        return [line.rstrip() for line in log if re.match(r"\S+ (warn|error) ", line)]


def burst(system, count):
    """`count` sandboxes paused, then all resumed at once; all run beside each other before they go. Those that the lab's
    emulation ended are counted and replaced."""
    rest, ids, lost = Rest(system), [], []
    while len(ids) < count:
        try:
            sandbox_id = rest.create()
            rest.pause(sandbox_id)
            ids.append(sandbox_id)
        except RuntimeError as failure:
            lost.append(str(failure))
            if len(lost) > count:
                raise
    waiting = list(ids)

    def make_worker():
        own = Rest(system)

        def resume():
            try:
                return {"resume": timed(own.resume, waiting.pop())[0]}
            except RuntimeError as failure:
                lost.append(str(failure))
                return None
        return resume

    began = time.monotonic()
    out = summary([sample for sample in in_parallel(count, count, make_worker) if sample])
    out["all_resumed_ms"] = round((time.monotonic() - began) * 1000)
    out["lost"], out["warnings"] = lost, complaints(system)
    time.sleep(5)
    monitors = [pid for pids in leaks.vm_processes().values() for pid in pids]
    out["private_mib"] = round(statistics.median(map(private_mib, monitors)), 1)
    out["overhead_mib"] = round(statistics.median(map(overhead_mib, monitors)), 1)
    for sandbox_id in ids:
        rest.destroy(sandbox_id)
    return out


def measure(driver, options):
    system = System(driver=driver)
    try:
        system.start()
        return {"lives": measure_lives(system, options.n, 1), "burst": burst(system, options.parallel)}
    except BaseException:
        print(f"{driver}:\n{system.tails()}", file=sys.stderr)
        raise
    finally:
        left = system.stop()
        if left:
            print(f"{driver} left: {left}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--parallel", type=int, default=20)
    options = parser.parse_args()
    found = {driver: measure(driver, options) for driver in DRIVERS}
    qemu, firecracker = (found[driver] for driver in DRIVERS)
    found["ratio"] = {step: round(firecracker["lives"][step]["p50"] / qemu["lives"][step]["p50"], 2) for step in qemu["lives"]}
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{'step, ms':<14} {'QEMU p50':>9} {'p95':>7} {'p99':>7} {'FC p50':>9} {'p95':>7} {'p99':>7} {'FC/QEMU':>8}   n")
    for step, ratio in found["ratio"].items():
        one, other = qemu["lives"][step], firecracker["lives"][step]
        print(f"{step:<14} {one['p50']:>9} {one['p95']:>7} {one['p99']:>7} {other['p50']:>9} {other['p95']:>7} "
              f"{other['p99']:>7} {ratio:>8} {one['n']:>3}")
    for driver in DRIVERS:
        each = found[driver]["burst"]
        print(f"{driver}: {options.parallel} resumed at once in {each['all_resumed_ms']} ms (each p50 {each['resume']['p50']}, "
              f"p99 {each['resume']['p99']}), private memory of a VMM {each['private_mib']} MiB, of which beside the guest's "
              f"{each['overhead_mib']} MiB; lost {len(each['lost'])}", *each["lost"], *each["warnings"], sep="\n  ")


if __name__ == "__main__":
    main()
