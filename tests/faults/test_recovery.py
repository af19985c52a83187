"""A new agent gives nothing up that it cannot prove to be gone: what it can neither run nor resume is kept, listed as
error with a reason, and works again once the cause has passed."""
import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

from harness import leaks, wait
from harness.agent_rpc import RpcFailure

MARK = "here before"
DELAYS_SEC = (0, 0.02, 0.05, 0.1, 0.2, 0.4)


@pytest.fixture
def marked(system, make):
    """Makes running sandboxes with a mark in their memory."""
    def create(**fields):
        sandbox_id = make(**fields)
        system.api.shell(sandbox_id, f"echo {MARK} > /dev/shm/mark")
        return sandbox_id
    return create


def has_mark(system, sandbox_id):
    return wait.until(lambda: system.api.shell(sandbox_id, "cat /dev/shm/mark") == MARK, 30, f"the mark in {sandbox_id}")


def reason(system, sandbox_id):
    """The reason of a sandbox in error; None for others."""
    info = system.rpc.sandbox(sandbox_id)
    assert info is not None, f"{sandbox_id} is gone"
    return info.get("errorReason", "") if info["status"] == "error" else None


def journal_path(system, sandbox_id):
    return f"{system.sandboxes}/{sandbox_id}/journal.json"


@contextlib.contextmanager
def changed(path, change):
    """The file's bytes as `change` makes them, and put back at the end."""
    with open(path, "rb") as original:
        content = original.read()
    with open(path, "wb") as damaged:
        damaged.write(change(content))
    yield
    with open(path, "wb") as restored:
        restored.write(content)


@contextlib.contextmanager
def moved(path):
    os.rename(path, path + ".away")
    yield
    # An agent that took the place for empty may have made a folder there.
    if os.path.isdir(path):
        subprocess.run(["rm", "-rf", path], check=True, timeout=10)
    os.rename(path + ".away", path)


def flip_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1:]


def other_generation(content):
    manifest = json.loads(content)
    manifest["generation"] += 1
    return json.dumps(manifest).encode()


def other_driver(content):
    return json.dumps({**json.loads(content), "driver": "firecracker", "accel": "kvm"}).encode()


def refuses(system):
    """Starts the agent, which must end by itself; answers what it said."""
    system.agent.start()
    wait.until(lambda: not system.agent.alive(), 30, "the agent to refuse")
    assert system.agent.process.returncode == 1
    return system.agent.tail(5)


def test_a_start_that_is_stopped_gives_nothing_up(system, marked, no_leaks):
    ids = [marked() for _ in range(3)]
    pids = [system.vm_pid(each) for each in ids]
    system.agent.kill()
    for delay in DELAYS_SEC:
        system.agent.start()
        time.sleep(delay)
        system.agent.stop()
        assert [leaks.vm_processes().get(each) for each in ids] == [[pid] for pid in pids], f"after {delay} s"
    system.start_agent()
    assert [system.rpc.status(each) for each in ids] == ["running"] * 3
    assert [system.vm_pid(each) for each in ids] == pids
    for each in ids:
        has_mark(system, each)


def test_a_vm_that_does_not_answer_is_kept_and_a_dead_one_is_not(system, marked, no_leaks):
    silent, dead, well = marked(), marked(), marked()
    pid = system.vm_pid(silent)
    system.agent.kill()
    os.kill(pid, signal.SIGSTOP)
    os.kill(system.vm_pid(dead), signal.SIGKILL)
    system.start_agent()
    assert reason(system, silent) == "vm_unreachable"
    assert system.rpc.status(well) == "running"
    assert system.rpc.status(dead) is None, "its end is proved"
    has_mark(system, well)
    os.kill(pid, signal.SIGCONT)
    wait.until(lambda: system.rpc.status(silent) == "running", 60, "the VM to be taken over after all")
    assert system.vm_pid(silent) == pid
    has_mark(system, silent)


def test_a_damaged_or_missing_snapshot_is_kept_and_resumes_once_it_is_whole(system, marked, no_leaks):
    sandbox_id = marked()
    system.api.pause(sandbox_id)
    folder = f"{system.snapshots}/{sandbox_id}"
    manifest = f"{folder}/manifest.json"
    for damage, wanted in ((lambda: changed(manifest, flip_byte), "manifest_unreadable"),
                           (lambda: changed(manifest, other_generation), "snapshot_mismatch"),
                           (lambda: moved(folder), "snapshot_missing")):
        assert system.agent.stop() == 0
        with damage():
            system.start_agent()
            assert reason(system, sandbox_id) == wanted
            with pytest.raises(RpcFailure) as refused:
                system.rpc.call("ResumeSandbox", sandboxId=sandbox_id)
            assert wanted in str(refused.value) or refused.value.code == "failed_precondition"
            assert reason(system, sandbox_id) == wanted
    system.rpc.call("ResumeSandbox", sandboxId=sandbox_id)
    assert system.rpc.status(sandbox_id) == "running"
    has_mark(system, sandbox_id)


@pytest.mark.parametrize("folder", ["snapshots", "sandboxes"])
def test_without_its_disk_an_agent_does_not_start(system, marked, no_leaks, folder):
    """As if the disk with that folder were not mounted."""
    paused, running = marked(), marked()
    pid = system.vm_pid(running)
    system.api.pause(paused)
    assert system.agent.stop() == 0
    with moved(getattr(system, folder)):
        os.makedirs(getattr(system, folder))
        said = refuses(system)
        assert "mount" in said and f"AGENT_{folder.upper()}_PATH" in said, said
        assert leaks.vm_processes().get(running) == [pid]
    system.start_agent()
    assert (system.rpc.status(paused), system.rpc.status(running)) == ("paused", "running")
    system.api.resume(paused)
    has_mark(system, paused)
    has_mark(system, running)


def test_an_unreadable_journal_kills_no_vm(system, marked, no_leaks):
    back, given_up = marked(), marked()
    pid = system.vm_pid(back)
    system.agent.kill()
    with changed(journal_path(system, given_up), lambda content: b""):
        with changed(journal_path(system, back), lambda content: content[:len(content) // 2]):
            system.start_agent()
            for each in (back, given_up):
                assert reason(system, each) == "journal_unreadable"
                assert len(leaks.vm_processes().get(each, [])) == 1
            with pytest.raises(RpcFailure):
                system.rpc.call("ResumeSandbox", sandboxId=back)
            assert reason(system, back) == "journal_unreadable"
        system.rpc.call("ResumeSandbox", sandboxId=back)
        assert system.rpc.status(back) == "running" and system.vm_pid(back) == pid
        system.rpc.call("DestroySandbox", sandboxId=given_up)
        assert leaks.vm_processes().get(given_up) is None
        os.makedirs(os.path.dirname(journal_path(system, given_up)))
    os.remove(journal_path(system, given_up))
    os.rmdir(os.path.dirname(journal_path(system, given_up)))
    has_mark(system, back)


def test_an_agent_with_another_driver_does_not_start(system, marked, no_leaks):
    sandbox_id = marked()
    pid = system.vm_pid(sandbox_id)
    system.agent.kill()
    with changed(journal_path(system, sandbox_id), other_driver):
        assert "AGENT_DRIVER=firecracker" in refuses(system)
        assert system.vm_pid(sandbox_id) == pid
    system.start_agent()
    assert system.rpc.status(sandbox_id) == "running" and system.vm_pid(sandbox_id) == pid
    has_mark(system, sandbox_id)
