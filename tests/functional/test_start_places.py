"""A guest that keeps its host waiting after a resume keeps nobody else waiting, and runs nothing meanwhile."""
import os
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness import wait
from harness.agent_rpc import AgentRpc, RpcFailure
from harness.guest import Guest

# src/sandbox/limits.h: four starts a processor.
PLACES = 4 * os.cpu_count()
# kInitLimit there: how long a resumed guest is asked before it is given up.
INIT_LIMIT_SEC = 20


@pytest.fixture(scope="module", name="frozen")
def fixture_frozen(system):
    """A sandbox frozen as for a pause that never comes: its envd, when that was, and its counting process's file."""
    sandbox_id = system.api.create()["id"]
    system.api.exec_raw(sandbox_id, "bash", ["-c", "while :; do echo $((++i)) > /tmp/count; sleep 0.1; done"],
                        background=True)
    wait.until(lambda: system.api.read(sandbox_id, "/tmp/count").status_code == 200, 30, "the count")
    guest = Guest(system, sandbox_id)
    answer = guest.request("POST", "/freeze", params={"maxWaitMs": 5000})
    assert answer.status_code == 200 and answer.json()["unconfirmed"] == 0, answer.text
    yield guest, time.monotonic()
    guest.close()
    system.api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")


def fall_silent(system, sandbox_id):
    """From here on the guest answers nothing."""
    guest = Guest(system, sandbox_id)

    def silent():
        try:
            return guest.request("GET", "/health", timeout=1).status_code != 204
        except httpx.TransportError:
            return True

    system.api.exec_raw(sandbox_id, "bash", ["-c", "sleep 0.5; ip link set eth0 down"], background=True)
    wait.until(silent, 60, "the guest to fall silent")
    guest.close()


def resume(system, sandbox_id):
    """How the agent answers; the control plane has shares of its own."""
    rpc = AgentRpc(system.agent_url, system.secret, 120)
    try:
        rpc.call("ResumeSandbox", sandboxId=sandbox_id)
        return "resumed"
    except RpcFailure as failure:
        return failure.code
    finally:
        rpc.close()


@pytest.mark.timeout(400)
@pytest.mark.skipif(PLACES > 8, reason="one guest for each place: too many on a machine of this size")
def test_guests_that_do_not_answer_hold_no_place(api, system, make, frozen):
    del frozen  # its time passes meanwhile
    with ThreadPoolExecutor(PLACES) as pool:
        ids = list(pool.map(lambda _: make(), range(PLACES)))
        list(pool.map(lambda each: fall_silent(system, each), ids))
        list(pool.map(api.pause, ids))
        resumes = [pool.submit(resume, system, sandbox_id) for sandbox_id in ids]
        wait.until(lambda: sum(system.rpc.status(each) == "resuming" for each in ids) == PLACES or
                   any(each.done() for each in resumes), 60, "all of them to be resumed")
        assert not any(each.done() for each in resumes), [each.result() for each in resumes if each.done()]
        api.destroy(make())
        answered = [each.result() for each in resumes if each.done()]
        assert not answered, f"the new sandbox had to wait until {len(answered)} resumes had failed"
        assert {each.result() for each in resumes} == {"deadline_exceeded"}
    assert {system.rpc.status(each) for each in ids} == {"paused"}


def test_a_frozen_guest_outwaits_the_longest_init(frozen):
    guest, since = frozen
    time.sleep(max(0.0, INIT_LIMIT_SEC + 1 - (time.monotonic() - since)))

    def count():
        return guest.request("GET", "/files", params={"path": "/tmp/count"}).text

    before = count()
    time.sleep(0.5)
    assert count() == before, "its processes run although nobody has initialised it"
    assert guest.request("POST", "/unfreeze").status_code == 204
    wait.until(lambda: count() not in (before, ""), 20, "it to go on")
