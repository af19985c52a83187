"""A host disk that is full: what needs space fails with a typed error, nothing is lost, and sandboxes can be destroyed."""
import errno
import os
import tempfile
import threading
import time

import pytest

from harness import leaks, wait
from harness.api import error_of

SYSTEM = "small_disk"
MIB = 1 << 20


class Filler:
    """Takes all but `leave_mib` of the free space, also of what a guest's late writes leave of it."""

    def __init__(self, system, leave_mib):
        self.path = tempfile.mktemp(dir=system.data, prefix="filler-")
        size, step = 0, 64 * MIB
        with open(self.path, "wb") as filler:
            while step >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), size, step)
                    size += step
                except OSError as error:
                    assert error.errno == errno.ENOSPC, error
                    step //= 4
            assert size >= leave_mib * MIB, "the small disk is too small for this test"
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


def free_bytes(system):
    info = os.statvfs(system.data)
    return info.f_bavail * info.f_frsize


def test_destroy_gives_space_back(api, system, make, full, no_leaks):
    """Without the reserve for journals, and with it: on a full disk it is used first, and made again later."""
    running, paused = make(), make()
    api.pause(paused)
    reserve = f"{system.sandboxes}/.reserve"
    fillers = [full(0)]
    if os.path.exists(reserve):
        os.remove(reserve)
        fillers.append(full(0))
    api.destroy(running)
    assert system.rpc.sandbox(running) is None and not os.path.exists(f"{system.sandboxes}/{running}")
    assert free_bytes(system) > 4 * MIB, "its disk still occupies the host"
    for each in fillers:
        each.remove()
    wait.until(lambda: os.path.exists(reserve), 30, "the reserve to be made")
    full(0)
    api.destroy(paused)
    with open(system.agent.log_path, encoding="utf-8", errors="replace") as log:
        assert "the space reserved for journals is used" in log.read()
    assert free_bytes(system) > 4 * MIB and leaks.entries(system.snapshots) == []


def test_a_guest_that_writes_waits_for_space(api, system, make, full):
    """Under QEMU. Firecracker tells its guest of an I/O error."""
    if "firecracker" in system.driver:
        pytest.skip("its guests see the error")
    sandbox_id = make()
    filler = full(0)
    answers = []
    script = "dd if=/dev/zero of=/root/big bs=1M count=16 oflag=direct status=none && sha256sum < /root/big"
    command = threading.Thread(
        target=lambda: answers.append(api.exec_raw(sandbox_id, "bash", ["-c", script], timeout_sec=120)))
    command.start()
    wait.until(lambda: system.rpc.sandbox(sandbox_id).get("waitingFor") == "disk_space", 30, "the guest to stand still")
    assert api.request("GET", f"/v1/sandboxes/{sandbox_id}/metrics").json()["waiting_for"] == "disk_space"
    assert not answers and api.status(sandbox_id) == "running"
    filler.remove()
    command.join(60)
    assert answers and answers[0].status_code == 200, answers
    assert answers[0].json()["exit_code"] == 0, answers[0].text
    zeros = "080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e"
    assert answers[0].json()["stdout"].split()[0] == zeros
    wait.until(lambda: "waitingFor" not in system.rpc.sandbox(sandbox_id), 10, "it to wait no more")
