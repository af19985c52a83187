"""Ordered ends: a stopped agent finishes what it began, leaves VMs running and finds them again."""
import json
import os

from harness import leaks, wait


def dirty(api, sandbox_id, mib):
    """Makes the next pause long: that much memory to write."""
    api.shell(sandbox_id, f"head -c {mib}M /dev/urandom > /dev/shm/ballast && sha256sum < /dev/shm/ballast > /root/sum",
              timeout_sec=60)


def ballast_is_whole(api, sandbox_id):
    return api.shell(sandbox_id, "sha256sum < /dev/shm/ballast") == api.shell(sandbox_id, "cat /root/sum")


def phase(system, sandbox_id):
    """What the agent's journal says; None while there is none."""
    try:
        with open(f"{system.sandboxes}/{sandbox_id}/journal.json", encoding="utf-8") as text:
            return json.load(text).get("phase")
    except FileNotFoundError:
        return None


def test_the_reaper_finishes_a_pause_at_shutdown(api, system, make, no_leaks):
    sandbox_id = make(timeout_sec=1)
    dirty(api, sandbox_id, 96)
    wait.until(lambda: phase(system, sandbox_id) == "pausing", 15, "the reaper to begin the pause", 0.002)
    assert system.agent.stop() == 0
    assert phase(system, sandbox_id) == "paused", "the agent left a pause half done"
    assert leaks.vm_processes() == {}
    assert os.path.exists(f"{system.snapshots}/{sandbox_id}/manifest.json")
    system.start_agent()
    system.wait_status(sandbox_id, "paused", 10)
    api.resume(sandbox_id)
    assert ballast_is_whole(api, sandbox_id)


def test_sandboxes_outlive_the_agent(api, system, make, no_leaks):
    running, paused = make(), make()
    api.shell(running, "echo state > /dev/shm/state")
    api.write_ok(paused, "/root/mark", b"kept")
    api.pause(paused)
    pid = system.vm_pid(running)
    assert system.agent.stop() == 0
    assert system.vm_pid(running) == pid, "the VM ended with the agent"
    response = api.exec_raw(running, "true")
    assert response.status_code == 503, response.text
    assert api.status(running) == "running", "a missing agent is not a missing sandbox"
    system.start_agent()
    assert system.vm_pid(running) == pid
    assert api.shell(running, "cat /dev/shm/state") == "state"
    api.resume(paused)
    assert api.read_ok(paused, "/root/mark") == b"kept"


def test_the_timer_goes_on_after_a_restart(api, system, make):
    sandbox_id = make(timeout_sec=2)
    assert system.agent.stop() == 0
    system.start_agent()
    wait.until(lambda: system.rpc.status(sandbox_id) == "paused", 9, "the adopted sandbox to be paused", 0.1)


def test_a_snapshot_that_was_changed_is_refused(api, system, make):
    """Damage is found before a guest runs; the sandbox stays paused and can be destroyed."""
    sandbox_id = make()
    api.shell(sandbox_id, "head -c 8M /dev/urandom > /dev/shm/x")
    api.pause(sandbox_id)
    path = f"{system.snapshots}/{sandbox_id}/pages"
    with open(path, "r+b") as pages:
        pages.seek(os.path.getsize(path) // 2)
        byte = pages.read(1)
        pages.seek(-1, os.SEEK_CUR)
        pages.write(bytes([byte[0] ^ 0xFF]))
    response = api.request("POST", f"/v1/sandboxes/{sandbox_id}/resume")
    assert response.status_code in (409, 502), response.text
    assert leaks.vm_processes().get(sandbox_id) is None
    assert api.status(sandbox_id) == "paused"
    api.destroy(sandbox_id)


def test_the_control_plane_ends_and_comes_back(api, system, make):
    sandbox_id = make()
    assert system.cp.stop() == 0
    system.start_cp()
    assert api.exec(sandbox_id, "true")["exit_code"] == 0


def test_nothing_is_left_when_all_is_stopped(system, api):
    """The leak check of the whole run so far, on a system that saw every fault of this file."""
    sandbox_id = api.create()["id"]
    api.pause(sandbox_id)
    system.destroy_all()
    assert system.settle(20) == []
    assert system.cp.stop() == 0 and system.agent.stop() == 0
    left = leaks.problems_when_stopped(system, system.own_mounts)
    system.ensure_up()
    assert not left, "\n".join(left)
