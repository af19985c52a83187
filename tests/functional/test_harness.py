"""The leak checks see what is leaked: each kind of thing is left behind on purpose, found, and taken away again."""
import contextlib
import glob
import os
import subprocess

import pytest

from harness import leaks


def run(*command):
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@contextlib.contextmanager
def link(_):
    run("ip", "link", "add", "wrenn-v999", "type", "veth", "peer", "name", "leaked")
    yield
    run("ip", "link", "del", "wrenn-v999")


@contextlib.contextmanager
def namespaces(_):
    names = [f"wrenn-{900 + number}" for number in range(leaks.READY_SLOTS + 1)]
    for name in names:
        run("ip", "netns", "add", name)
    yield
    for name in names:
        run("ip", "netns", "del", name)


@contextlib.contextmanager
def cgroup(_):
    parents = glob.glob("/sys/fs/cgroup/wrenn") + glob.glob("/sys/fs/cgroup/*/wrenn")
    assert parents, "the agent has no cgroups"
    os.mkdir(f"{parents[0]}/sb-leaked")
    yield
    os.rmdir(f"{parents[0]}/sb-leaked")


@contextlib.contextmanager
def folder(system):
    os.mkdir(f"{system.sandboxes}/sb-leaked")
    yield
    os.rmdir(f"{system.sandboxes}/sb-leaked")


@contextlib.contextmanager
def mount(system):
    os.mkdir(f"{system.root}/leaked")
    run("mount", "-t", "tmpfs", "leaked", f"{system.root}/leaked")
    yield
    run("umount", f"{system.root}/leaked")
    os.rmdir(f"{system.root}/leaked")


@pytest.mark.parametrize("leak, shown", [
    (link, "links without a namespace"),
    (namespaces, "network namespaces for"),
    (cgroup, "cgroups ["),
    (folder, "sandbox folders ["),
    (mount, "mounts: ["),
])
def test_a_leak_is_found(system, leak, shown):
    assert not system.settle(25)
    with leak(system):
        assert any(shown in problem for problem in leaks.problems(system, system.own_mounts))
    assert not system.settle(25)


def test_the_outer_machine_is_not_seen():
    """What runs beside the tests, such as a service that was left running, is no business of their checks."""
    named = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True, timeout=20).stdout
    seen = {line.split(": ")[1].split("@")[0] for line in named.splitlines()}
    assert set(os.listdir("/sys/class/net")) - {"bonding_masters"} == seen
