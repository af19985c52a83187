"""What is on the disk: damage of any of a snapshot's files is found before a guest runs, what cannot be removed harms
nobody, and template snapshots keep to their budget and to their image."""
import glob
import json
import os
import subprocess
import threading
import time

import pytest

from harness import leaks, wait
from harness.api import error_of

ODD_SIZE = 200  # MiB: no template has it, so its guests boot


def flip(path):
    """Flips the bits of one byte in the middle of the file's first data, behind its time of change: as a disk would."""
    info = os.stat(path)
    with open(path, "r+b") as file:
        data = os.lseek(file.fileno(), 0, os.SEEK_DATA)
        hole = os.lseek(file.fileno(), data, os.SEEK_HOLE)
        file.seek((data + hole) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def refused(api, sandbox_id):
    response = api.request("POST", f"/v1/sandboxes/{sandbox_id}/resume")
    assert response.status_code in (409, 502), response.text
    assert leaks.vm_processes().get(sandbox_id) is None
    assert api.status(sandbox_id) == "paused"
    return error_of(response)


def restart_agent(system):
    assert system.agent.stop() == 0
    system.start_agent()


def test_memory_of_a_guest_that_booted(api, system, make):
    """Such a sandbox shares its memory with nobody: its own manifest must vouch for it."""
    sandbox_id = make(memory_mb=ODD_SIZE)
    api.shell(sandbox_id, "echo kept > /dev/shm/mark")
    api.pause(sandbox_id)
    memory = f"{system.snapshots}/{sandbox_id}/memory"
    flip(memory)
    refused(api, sandbox_id)
    flip(memory)
    api.resume(sandbox_id)
    assert api.shell(sandbox_id, "cat /dev/shm/mark") == "kept"
    # Its next snapshot shares the memory file with its first.
    api.pause(sandbox_id)
    api.resume(sandbox_id)
    assert api.shell(sandbox_id, "cat /dev/shm/mark") == "kept"


def test_memory_of_a_template(api, system, make):
    """It is shared, so it is read once in an agent's life, and before its first use in each."""
    paused, running = make(), make()
    api.shell(paused, "echo kept > /dev/shm/mark")
    api.pause(paused)
    restart_agent(system)
    memory = f"{system.snapshots}/{paused}/memory"
    assert os.path.samefile(memory, f"{system.sandboxes}/{running}/memory")
    flip(memory)
    try:
        refused(api, paused)
        # The running one maps the same file: its next snapshot would be of no use, so it goes on instead.
        response = api.request("POST", f"/v1/sandboxes/{running}/pause")
        assert response.status_code == 502, response.text
        assert api.status(running) == "running" and api.exec(running, "true")["exit_code"] == 0
        assert leaks.entries(system.snapshots) == [paused]
    finally:
        flip(memory)
    api.resume(paused)
    assert api.shell(paused, "cat /dev/shm/mark") == "kept"
    api.pause(running)


def test_a_snapshot_of_an_earlier_agent(api, system, make):
    """Its manifest does not list the memory."""
    sandbox_id = make()
    api.shell(sandbox_id, "echo kept > /dev/shm/mark")
    api.pause(sandbox_id)
    path = f"{system.snapshots}/{sandbox_id}/manifest.json"
    with open(path, encoding="utf-8") as text:
        manifest = json.load(text)
    assert manifest["format"] == 2
    manifest["format"] = 1
    manifest["files"] = [each for each in manifest["files"] if each["name"] != "memory"]
    with open(path, "w", encoding="utf-8") as text:
        json.dump(manifest, text)
    for _ in range(2):
        api.resume(sandbox_id)
        assert api.shell(sandbox_id, "cat /dev/shm/mark") == "kept"
        api.pause(sandbox_id)
    with open(path, encoding="utf-8") as text:
        assert "memory" in [each["name"] for each in json.load(text)["files"]]


def test_an_old_snapshot_that_cannot_be_removed(api, system, make):
    """Neither the resume that consumed it nor the pause that replaces it fails, and the newest state counts."""
    sandbox_id = make()
    api.pause(sandbox_id)
    busy = f"{system.snapshots}/{sandbox_id}/busy"
    os.mkdir(busy)
    subprocess.run(["mount", "-t", "tmpfs", "none", busy], check=True, timeout=10)
    try:
        api.resume(sandbox_id)
        api.shell(sandbox_id, "echo newest > /dev/shm/mark")
        api.pause(sandbox_id)
        restart_agent(system)
        api.resume(sandbox_id)
        assert api.shell(sandbox_id, "cat /dev/shm/mark") == "newest"
    finally:
        for point in glob.glob(f"{system.snapshots}/{sandbox_id}*/busy"):
            subprocess.run(["umount", point], check=False, timeout=10)
    restart_agent(system)
    assert leaks.entries(system.snapshots) == [], "what could not be removed is swept by the next agent"


# ---- template snapshots

def templates(system, shape="*"):
    return [path for path in glob.glob(f"{system.images}/minimal/snapshots/{shape}") if ".tmp-" not in path]


def occupied(folder):
    return sum(os.lstat(f"{folder}/{name}").st_blocks * 512 for name in os.listdir(folder))


@pytest.fixture
def with_cache(system):
    """Gives the agent another budget for template snapshots."""
    def use(mib):
        assert system.agent.stop() == 0
        system.agent.env["AGENT_TEMPLATE_CACHE_MIB"] = str(mib)
        system.start_agent()

    yield use
    system.agent.stop()
    system.agent.env.pop("AGENT_TEMPLATE_CACHE_MIB", None)
    system.run("wrenn-agent", "prepare", limit_sec=240)
    system.start_agent()


def test_template_snapshots_keep_to_their_budget(api, system, make, with_cache):
    [default] = templates(system, "1c-512m-*")
    before = set(templates(system))
    budget = int(2.5 * occupied(default)) >> 20
    with_cache(budget)
    # Sizes that only one sandbox has leave nothing behind.
    for memory_mb in (ODD_SIZE, ODD_SIZE + 1, ODD_SIZE + 2):
        api.destroy(make(memory_mb=memory_mb))
    api.destroy(make(memory_mb=256))
    wait.until(lambda: templates(system, "1c-256m-*"), 120, "the snapshot of 256 MiB")
    assert not set(templates(system)) - before - set(templates(system, "1c-256m-*"))
    api.destroy(make())
    api.destroy(make(memory_mb=384))
    wait.until(lambda: templates(system, "1c-384m-*"), 120, "the snapshot of 384 MiB")
    wait.until(lambda: not templates(system, "1c-256m-*"), 30, "the snapshot used longest ago to make room")
    assert templates(system, "1c-512m-*") == [default]
    assert sum(map(occupied, templates(system))) <= budget << 20


def version_of(path):
    info = os.stat(path)
    return f"{info.st_size}-{info.st_mtime_ns // 10**9}.{info.st_mtime_ns % 10**9:09}"


def test_an_image_that_is_replaced_while_creates_wait(api, system, make):
    """Memory and disk of a sandbox are of one image, whichever it is."""
    image = f"{system.images}/minimal/rootfs.ext4"
    old, new = f"{system.images}/minimal/.old", f"{system.images}/minimal/.new"
    os.link(image, old)
    subprocess.run(["cp", "--sparse=always", image, new], check=True, timeout=120)
    crowd = 4 * os.cpu_count() + 4  # more than start at a time, so some wait
    made, lock = [], threading.Lock()

    def create():
        sandbox_id = make()
        with lock:
            made.append(sandbox_id)

    threads = [threading.Thread(target=create) for _ in range(crowd)]
    try:
        for thread in threads:
            thread.start()
        wait.until(lambda: len(leaks.entries(system.sandboxes)) >= crowd - 4, 60, "the first creates")
        time.sleep(0.2)
        os.rename(new, image)
        for thread in threads:
            thread.join(150)
        assert len(made) == crowd
        bases = set()
        for sandbox_id in made:
            folder = f"{system.sandboxes}/{sandbox_id}"
            bases.add(version_of(f"{folder}/base.ext4"))
            for template in templates(system):
                if os.path.exists(f"{folder}/memory") and os.path.samefile(f"{template}/memory", f"{folder}/memory"):
                    with open(f"{template}/manifest.json", encoding="utf-8") as text:
                        assert json.load(text)["base_image"] == version_of(f"{folder}/base.ext4")
        assert len(bases) == 2, "the image was replaced too early or too late for this test to tell anything"
    finally:
        os.rename(old, image)
        if os.path.exists(new):
            os.remove(new)
