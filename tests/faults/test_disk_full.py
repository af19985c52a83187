"""A host disk that is full: the pause fails with a typed error and the VM goes on with all its data."""
import errno
import os
import time

import pytest

from harness import leaks
from harness.api import error_of

SYSTEM = "small_disk"
MIB = 1 << 20


class Filler:
    """Takes all but `leave_mib` of the free space, also of what a guest's late writes leave of it."""

    def __init__(self, system, leave_mib):
        self.path = f"{system.data}/filler"
        size, step = 0, 64 * MIB
        with open(self.path, "wb") as filler:
            while step >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), size, step)
                    size += step
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
                    step //= 4
            assert size > leave_mib * MIB, "the small disk is too small for this test"
            filler.truncate(size - leave_mib * MIB)

    def remove(self):
        if os.path.exists(self.path):
            os.remove(self.path)


@pytest.fixture
def full(system):
    fillers = []

    def fill(leave_mib):
        fillers.append(Filler(system, leave_mib))
        return fillers[-1]

    yield fill
    for each in fillers:
        each.remove()


@pytest.mark.parametrize("leave_mib", [0, 1, 12])
def test_pause(api, system, make, full, leave_mib):
    sandbox_id = make()
    api.shell(sandbox_id, "head -c 24M /dev/urandom > /dev/shm/data && sha256sum < /dev/shm/data > /root/sum; sync")
    pid = system.vm_pid(sandbox_id)
    filler = full(leave_mib)
    response = api.request("POST", f"/v1/sandboxes/{sandbox_id}/pause")
    assert response.status_code == 507, response.text
    assert error_of(response)[0] == "insufficient_storage"
    assert api.status(sandbox_id) == "running" and system.vm_pid(sandbox_id) == pid
    assert api.shell(sandbox_id, "sha256sum < /dev/shm/data") == api.shell(sandbox_id, "cat /root/sum")
    assert leaks.entries(system.snapshots) == [], "a failed pause left files"
    filler.remove()
    api.pause(sandbox_id)
    api.resume(sandbox_id)
    assert api.shell(sandbox_id, "sha256sum < /dev/shm/data") == api.shell(sandbox_id, "cat /root/sum")


def test_auto_pause_keeps_the_sandbox(api, system, make, full):
    """Destroying it would lose the data: it stays running and is paused once there is space."""
    sandbox_id = make(timeout_sec=1)
    api.shell(sandbox_id, "head -c 24M /dev/urandom > /dev/shm/data")
    filler = full(1)
    time.sleep(7)
    assert system.rpc.status(sandbox_id) == "running"
    assert api.status(sandbox_id) == "running"
    filler.remove()
    system.wait_status(sandbox_id, "paused", 30)
    api.resume(sandbox_id)
    assert api.shell(sandbox_id, "stat -c %s /dev/shm/data") == str(24 * MIB)


def test_create(api, system, make, full, no_leaks):
    full(0)
    response = api.request("POST", "/v1/sandboxes", json={})
    assert response.status_code == 507, response.text
    assert error_of(response)[0] == "insufficient_storage"
