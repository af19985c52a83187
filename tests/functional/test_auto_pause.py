"""Auto-pause, the heart of the product: timers, pings, reports and the reconciler."""
import os
import threading
import time

import pytest

from harness import wait
from harness.agent_rpc import RpcFailure
from harness.api import error_of

TICK_SEC = 2        # the agent's reaper
RECONCILE_SEC = 5   # the control plane's reconciler
SLACK_SEC = 3       # a pause and a busy machine
UNKNOWN = "sb-aaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture(scope="module", autouse=True)
def never(system):
    """Idle from the beginning of this module to its end, with the default timeout."""
    sandbox = system.api.create()
    assert sandbox["timeout_sec"] == 0
    began = time.monotonic()
    yield sandbox["id"], began
    system.ensure_up()
    system.api.request("DELETE", f"/v1/sandboxes/{sandbox['id']}")


@pytest.fixture
def without_control_plane(system):
    """The agent alone: nobody acknowledges anything."""
    system.cp.stop()
    yield system.rpc
    system.ensure_up()


def paused_by_agent(rpc, sandbox_id, limit_sec):
    return wait.until(lambda: rpc.status(sandbox_id) == "paused", limit_sec, f"the agent to pause {sandbox_id}", 0.1)


def test_an_idle_sandbox_is_paused_and_its_row_follows(api, system, make):
    sandbox_id = make(timeout_sec=1)
    began = time.monotonic()
    paused_by_agent(system.rpc, sandbox_id, 1 + TICK_SEC + SLACK_SEC)
    assert time.monotonic() - began >= 0.9, "paused before its timeout"
    system.wait_status(sandbox_id, "paused", RECONCILE_SEC + SLACK_SEC)
    # The row is told, so the agent stops telling.
    wait.until(lambda: sandbox_id not in system.rpc.list()[1], RECONCILE_SEC + SLACK_SEC, "the acknowledgement")
    assert api.status(sandbox_id) == "paused"


def test_the_last_activity_is_the_owners_not_the_pause(api, system, make):
    """The reaper's attempts are no activity: one that fails is tried again soon, and the time shown stays true."""
    sandbox_id = make(timeout_sec=3)
    api.exec(sandbox_id, "true")
    active = time.time()
    paused_by_agent(system.rpc, sandbox_id, 3 + TICK_SEC + SLACK_SEC)
    assert int(system.rpc.sandbox(sandbox_id)["lastActiveAtUnix"]) <= active + 1


def test_timeout_survives_resume(api, system, make):
    sandbox_id = make(timeout_sec=1)
    system.wait_status(sandbox_id, "paused", 1 + TICK_SEC + RECONCILE_SEC + SLACK_SEC)
    assert api.resume(sandbox_id)["timeout_sec"] == 1
    assert system.rpc.sandbox(sandbox_id)["timeoutSec"] == 1
    system.wait_status(sandbox_id, "paused", 1 + TICK_SEC + RECONCILE_SEC + SLACK_SEC)


def test_activity_holds_the_pause_off(api, system, make):
    """A long command and an open stream count as activity while they last; calls count when they come."""
    sandbox_id = make(timeout_sec=4)
    answer = api.exec(sandbox_id, "sleep", ["8"])
    assert answer["exit_code"] == 0, "paused under a running command"
    assert system.rpc.status(sandbox_id) == "running"
    socket = api.exec_socket(sandbox_id)
    socket.send({"type": "start", "cmd": "sleep", "args": ["8"]})
    assert list(socket.messages())[-1]["type"] == "exit"
    for _ in range(8):
        time.sleep(1)
        api.write_ok(sandbox_id, "/tmp/alive", b"x")
    assert system.rpc.status(sandbox_id) == "running"
    paused_by_agent(system.rpc, sandbox_id, 4 + TICK_SEC + SLACK_SEC)


class TestPing:
    def test_resets_both_clocks(self, api, system, make):
        sandbox_id = make(timeout_sec=3600)
        time.sleep(2.1)
        row_before = api.get(sandbox_id)["last_active_at"]
        agent_before = int(system.rpc.sandbox(sandbox_id)["lastActiveAtUnix"])
        response = api.ping(sandbox_id)
        assert response.status_code == 204 and response.content == b""
        assert api.get(sandbox_id)["last_active_at"] > row_before
        assert int(system.rpc.sandbox(sandbox_id)["lastActiveAtUnix"]) > agent_before

    def test_keeps_a_sandbox_awake(self, api, system, make):
        sandbox_id = make(timeout_sec=4)
        for _ in range(10):
            time.sleep(0.8)
            assert api.ping(sandbox_id).status_code == 204
        assert system.rpc.status(sandbox_id) == "running"

    def test_unknown_is_404(self, api):
        response = api.ping(UNKNOWN)
        assert response.status_code == 404 and error_of(response)[0] == "not_found"

    def test_paused_and_stopped_are_409(self, api, make):
        sandbox_id = make()
        api.pause(sandbox_id)
        response = api.ping(sandbox_id)
        assert response.status_code == 409 and error_of(response)[0] in ("invalid_state", "conflict")
        api.destroy(sandbox_id)
        assert api.ping(sandbox_id).status_code == 409

    def test_the_agents_own_answers(self, system, make):
        with pytest.raises(RpcFailure) as failure:
            system.rpc.call("PingSandbox", sandboxId=UNKNOWN)
        assert failure.value.code == "not_found"
        sandbox_id = make()
        system.api.pause(sandbox_id)
        with pytest.raises(RpcFailure) as failure:
            system.rpc.call("PingSandbox", sandboxId=sandbox_id)
        assert failure.value.code == "failed_precondition"


class TestReport:
    def test_ids_stay_reported_until_acknowledged(self, system, without_control_plane):
        rpc = without_control_plane
        sandbox_id = rpc.call("CreateSandbox", timeoutSec=1)["sandboxId"]
        paused_by_agent(rpc, sandbox_id, 1 + TICK_SEC + SLACK_SEC)
        for _ in range(3):
            assert sandbox_id in rpc.list()[1], "an answer that may have been lost emptied the list"
        # Not even a dead agent forgets.
        system.agent.kill()
        system.start_agent()
        assert rpc.status(sandbox_id) == "paused"
        assert sandbox_id in rpc.list()[1]
        rpc.call("AcknowledgeAutoPaused", sandboxIds=[sandbox_id, UNKNOWN])
        assert sandbox_id not in rpc.list()[1]
        rpc.call("ResumeSandbox", sandboxId=sandbox_id, timeoutSec=0)
        assert rpc.sandbox(sandbox_id).get("timeoutSec", 0) == 0
        rpc.call("DestroySandbox", sandboxId=sandbox_id)

    def test_a_pause_by_request_is_not_reported(self, system, without_control_plane):
        rpc = without_control_plane
        sandbox_id = rpc.call("CreateSandbox")["sandboxId"]
        rpc.call("PauseSandbox", sandboxId=sandbox_id)
        assert sandbox_id not in rpc.list()[1]
        rpc.call("DestroySandbox", sandboxId=sandbox_id)

    def test_a_pause_while_the_control_plane_is_down_is_not_lost(self, system, make):
        sandbox_id = make(timeout_sec=1)
        system.cp.kill()
        paused_by_agent(system.rpc, sandbox_id, 1 + TICK_SEC + SLACK_SEC)
        system.start_cp()
        system.wait_status(sandbox_id, "paused", RECONCILE_SEC + SLACK_SEC)


class TestReconciler:
    def test_a_dead_vm_is_stopped_not_paused(self, api, system, make, no_leaks):
        sandbox_id = make(timeout_sec=3600)
        os.kill(system.vm_pid(sandbox_id), 9)
        system.wait_status(sandbox_id, "stopped", RECONCILE_SEC + SLACK_SEC)
        assert api.exec_raw(sandbox_id, "true").status_code == 409
        assert api.request("POST", f"/v1/sandboxes/{sandbox_id}/resume").status_code == 409

    def test_one_pass_tells_both_apart(self, api, system, make):
        paused, dead = make(timeout_sec=1), make(timeout_sec=3600)
        paused_by_agent(system.rpc, paused, 1 + TICK_SEC + SLACK_SEC)
        os.kill(system.vm_pid(dead), 9)
        system.wait_status(dead, "stopped", RECONCILE_SEC + SLACK_SEC)
        system.wait_status(paused, "paused", RECONCILE_SEC + SLACK_SEC)

    def test_a_pause_whose_vm_is_gone_ends_it(self, api, system, make, no_leaks):
        """The only case in which a failed pause destroys: there is no VM process left to go on."""
        sandbox_id = make()
        pid = system.vm_pid(sandbox_id)
        api.shell(sandbox_id, "head -c 200M /dev/urandom > /dev/shm/ballast")
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(api.request("POST", f"/v1/sandboxes/{sandbox_id}/pause")))
        thread.start()
        wait.until(lambda: system.rpc.status(sandbox_id) == "pausing" or answers, 10, "the pause to begin", 0.005)
        os.kill(pid, 9)
        thread.join(60)
        assert answers, "the pause never answered"
        if answers[0].status_code == 200:
            # The kill came after the snapshot was durable.
            assert api.resume(sandbox_id)["status"] == "running"
            return
        error_of(answers[0])
        system.wait_status(sandbox_id, "stopped", RECONCILE_SEC + SLACK_SEC)


def test_zz_default_is_never(system, api, never):
    """Runs last: the sandbox has been idle for the whole module."""
    sandbox_id, began = never
    wait.until(lambda: time.monotonic() - began > 12, 20, "12 s of idleness")
    seen = system.rpc.sandbox(sandbox_id)
    assert seen["status"] == "running"
    assert api.status(sandbox_id) == "running"
