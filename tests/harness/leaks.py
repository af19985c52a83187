"""What a Wrenn system occupies on its host, and whether anything of that belongs to nobody."""
import glob
import os
import re
import subprocess

READY_SLOTS = 4  # network slots an agent keeps prepared


def vm_processes():
    """Pids of VM monitors by the id of their sandbox; a host has one agent, so all are its."""
    found = {}
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(f"{folder}/cmdline", "rb") as cmdline:
                command = cmdline.read().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        program = os.path.basename(command.split(" ", 1)[0])
        match = re.search(r"(?:guest=|--id[= ])([A-Za-z0-9_-]+)", command)
        if match and program in ("qemu-system-x86_64", "firecracker", "jailer"):
            found.setdefault(match.group(1), []).append(int(os.path.basename(folder)))
    return found


def namespaces():
    return sorted(name for name in _names("/run/netns") if re.fullmatch(r"wrenn-\d+", name))


def links():
    return sorted(name for name in _names("/sys/class/net") if re.fullmatch(r"wrenn-v\d+", name))


def cgroups():
    found = set()
    for parent in glob.glob("/sys/fs/cgroup/wrenn") + glob.glob("/sys/fs/cgroup/*/wrenn"):
        found.update(name for name in _names(parent) if os.path.isdir(f"{parent}/{name}"))
    return sorted(found)


def tables():
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, timeout=10, check=False).stdout
    return sorted(line for line in listed.splitlines() if "wrenn" in line)


def mounts(root):
    with open("/proc/self/mounts", encoding="utf-8") as text:
        points = [line.split()[1] for line in text]
    return sorted(point for point in points if point.startswith(root + "/"))


def entries(folder):
    """Names in a data folder that are no dot files (locks)."""
    return sorted(name for name in _names(folder) if not name.startswith("."))


def _names(folder):
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def problems(system, own_mounts=()):
    """What does not fit the agent's own list, as sentences; empty when all is accounted for."""
    out = []
    sandboxes, _ = system.rpc.list()
    running = {key for key, each in sandboxes.items() if each["status"] == "running"}
    paused = {key for key, each in sandboxes.items() if each["status"] == "paused"}
    moving = {key: each["status"] for key, each in sandboxes.items() if key not in running | paused}
    if moving:
        out.append(f"in a transition: {moving}")
    processes = vm_processes()
    if set(processes) != running:
        out.append(f"VM processes of {sorted(processes)}, running sandboxes {sorted(running)}")
    for key, pids in processes.items():
        if len(pids) != 1:
            out.append(f"{key} has {len(pids)} VM processes: {pids}")
    if set(entries(system.sandboxes)) != running | paused:
        out.append(f"sandbox folders {entries(system.sandboxes)}, sandboxes {sorted(running | paused)}")
    if set(entries(system.snapshots)) != paused:
        out.append(f"snapshot folders {entries(system.snapshots)}, paused sandboxes {sorted(paused)}")
    if set(cgroups()) != running:
        out.append(f"cgroups {cgroups()}, running sandboxes {sorted(running)}")
    if len(namespaces()) > len(running) + READY_SLOTS:
        out.append(f"{len(namespaces())} network namespaces for {len(running)} running sandboxes: {namespaces()}")
    if {name.removeprefix("wrenn-v") for name in links()} != {name.removeprefix("wrenn-") for name in namespaces()}:
        out.append(f"links without a namespace: {links()} against {namespaces()}")
    if set(mounts(system.root)) - set(own_mounts):
        out.append(f"mounts: {mounts(system.root)}")
    return out


def problems_when_stopped(system, own_mounts=()):
    """After the last sandbox was destroyed and the agent ended nothing may be left."""
    out = []
    for what, found in (("VM processes", vm_processes()), ("namespaces", namespaces()), ("links", links()),
                        ("nft tables", tables()), ("cgroups", cgroups()),
                        ("sandbox folders", entries(system.sandboxes)),
                        ("snapshot folders", entries(system.snapshots)),
                        ("mounts", sorted(set(mounts(system.root)) - set(own_mounts))),
                        ("unpublished template snapshots", glob.glob(f"{system.images}/*/snapshots/*.tmp-*"))):
        if found:
            out.append(f"{what}: {found}")
    return out
