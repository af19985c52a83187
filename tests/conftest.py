"""Each worker is a host of its own (harness/own-host), and a host has one agent: one system at a time. Modules name the
kind they need; equal kinds share a system."""
import glob
import os
import re
import shutil
import sys
import tempfile
import time

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import postgres  # noqa: E402
from harness.system import BASE, BUILDS, System, free_port  # noqa: E402


class SystemPool:
    def __init__(self):
        self.current = None
        self.kind = None
        self.driver = os.environ.get("AGENT_DRIVER", "auto")
        self.images = None
        self.left_behind = []

    def get(self, kind):
        if self.kind != kind:
            self.close()
            system = self.make(kind)
            self.current, self.kind = system, kind
            system.start()
            self.remember_driver(system)
        self.current.ensure_up()
        return self.current

    def own_images(self):
        """Hard links to the base images, without the template snapshots that a service on this machine has made: those
        made here are this worker's, and tests damage them."""
        if self.images is None:
            os.makedirs(f"{BASE}/t", exist_ok=True)
            self.images = tempfile.mkdtemp(dir=f"{BASE}/t", prefix="images-")
            for image in glob.glob(f"{BASE}/images/*/rootfs.ext4"):
                folder = f"{self.images}/{os.path.basename(os.path.dirname(image))}"
                os.mkdir(folder)
                os.link(image, f"{folder}/rootfs.ext4")
        return self.images

    def make(self, kind):
        options = {"driver": self.driver, "images": self.own_images()}
        if kind == "postgres":
            server = postgres.Postgres(free_port())
            server.start()
            return System(server.url, server, **options)
        if kind == "small_disk":
            return System(small_disk_mib=1536, **options)
        return System(**options)

    def remember_driver(self, system):
        with open(system.agent.log_path, encoding="utf-8", errors="replace") as log:
            found = re.search(r"VMM (qemu|firecracker) \S+ on (kvm|tcg)", log.read())
        if found:
            self.driver = f"qemu-{found.group(2)}" if found.group(1) == "qemu" else "firecracker"

    def close(self):
        if self.current is None:
            return
        system, kind, self.current, self.kind = self.current, self.kind, None, None
        left = system.stop()
        if left:
            self.left_behind.append(f"the {kind} system left in {system.root}: " + "; ".join(left))


POOL = SystemPool()


def pytest_sessionstart(session):
    del session
    if os.geteuid() != 0:
        pytest.exit("the functional tests need root: they start VMs and network namespaces", 3)
    for path in (f"{BUILDS}/wrenn-cp", f"{BUILDS}/wrenn-agent", f"{BASE}/kernels/digest", f"{BASE}/images/minimal/rootfs.ext4"):
        if not os.path.exists(path):
            pytest.exit(f"{path} is missing; run 'make build guest' first", 3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and POOL.current is not None:
        report.sections.append((f"programs at {time.strftime('%H:%M:%S')}", POOL.current.tails()))
    del item, call


@pytest.fixture(scope="session", autouse=True)
def close_pool_at_end():
    yield
    POOL.close()
    if POOL.images is not None:
        shutil.rmtree(POOL.images, ignore_errors=True)
    assert not POOL.left_behind, "\n".join(POOL.left_behind)


@pytest.fixture(scope="module")
def system(request):
    """The running system. A module asks for another kind by `SYSTEM = "postgres"`."""
    try:
        return POOL.get(getattr(request.module, "SYSTEM", "default"))
    except AssertionError as error:
        tails = POOL.current.tails() if POOL.current else ""
        raise AssertionError(f"{error}\n{tails}") from error


@pytest.fixture
def api(system):
    system.ensure_up()
    return system.api


@pytest.fixture
def make(system):
    """Creates sandboxes and destroys them after the test."""
    made = []

    def create(**fields):
        sandbox = system.api.create(**fields)
        made.append(sandbox["id"])
        return sandbox["id"]

    yield create
    system.ensure_up()
    for sandbox_id in made:
        system.api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")


@pytest.fixture(scope="module")
def shared(system):
    """One sandbox for a module's tests that leave it running and as it was."""
    sandbox_id = system.api.create()["id"]
    yield sandbox_id
    system.ensure_up()
    system.api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")


@pytest.fixture
def no_leaks(system):
    """After the test everything on the host must belong to a sandbox the agent knows."""
    yield
    system.ensure_up()
    left = system.settle(25)
    assert not left, "\n".join(left)
