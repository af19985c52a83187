"""A control plane that dies, stops in order, or is asked for too much: transitions are taken over, nobody's wait keeps
others waiting, and no number of rows hides one."""
import contextlib
import os
import signal
import socket
import threading
import time

import httpx

from harness import leaks, wait
from harness.api import Api

# An owner of a transition that shows no life for 20 s is replaced; then one more reconcile pass.
CONVERGE_SEC = 60


@contextlib.contextmanager
def frozen(program):
    """The program keeps its connections and does nothing."""
    program.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        program.signal(signal.SIGCONT)


def in_background(call, *arguments):
    """Calls as a client whose errors do not matter."""
    def run():
        with contextlib.suppress(Exception):
            call(*arguments)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def transition(system, sandbox_id):
    return system.sql(f"SELECT transition FROM sandboxes WHERE id = '{sandbox_id}'")[0][0]


def test_a_delete_right_after_a_crash_during_a_pause(api, system, make, no_leaks):
    """Whoever waits for a dead process's transition must not keep it alive."""
    sandbox_id = make()
    with frozen(system.agent):
        client = in_background(api.pause, sandbox_id)
        wait.until(lambda: transition(system, sandbox_id) == "pausing", 20, "the row to be pausing")
        system.cp.kill()
    client.join(60)
    system.start_cp()
    patient = Api(system.cp_url, system.key, limit_sec=90)
    patient.destroy(sandbox_id)
    patient.close()
    assert api.status(sandbox_id) == "stopped"


def test_an_orderly_stop_keeps_what_a_crash_would(api, system, make, no_leaks):
    """With a creation and a removal in flight, and traffic that wakes a third sandbox."""
    doomed, asleep = make(), make(auto_resume=True)
    api.pause(asleep)
    stopping = threading.Event()

    def knock():
        while not stopping.is_set():
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{system.proxy_port}/", headers={"Host": f"8000-{asleep}.sandbox.test"},
                          timeout=60, trust_env=False)
            stopping.wait(0.02)

    with frozen(system.agent):
        clients = [in_background(api.create), in_background(api.destroy, doomed)]
        clients += [in_background(knock) for _ in range(6)]

        def in_flight():
            return sorted(row[0] for row in system.sql("SELECT transition FROM sandboxes WHERE transition <> ''"))
        wait.until(lambda: in_flight() == ["creating", "destroying", "resuming"], 20, "all three to be in flight")
        created = system.sql("SELECT id FROM sandboxes WHERE transition = 'creating'")[0][0]
        status = system.cp.stop()
        stopping.set()
    for client in clients:
        client.join(60)
    assert status == 0, system.cp.tail()
    assert transition(system, created) == "creating" and transition(system, doomed) == "destroying"
    system.start_cp()
    system.wait_status(created, "running", CONVERGE_SEC)
    assert api.shell(created, "echo here") == "here"
    wait.until(lambda: transition(system, doomed) == "" and transition(system, asleep) == "", CONVERGE_SEC,
               "the other two to be resolved", 0.2)
    assert system.sql(f"SELECT status, end_reason FROM sandboxes WHERE id = '{doomed}'") == [("stopped", "destroyed")]
    api.destroy(created)


def test_waiting_deletes_take_nobodys_place(api, system, make):
    """300 DELETEs of one sandbox that is changing state: all wait, and another team goes on."""
    sandbox_id = make()
    until = int(time.time() + 3600) * 1000
    system.sql(f"UPDATE sandboxes SET transition = 'pausing', transition_at = {until}, version = version + 1 "
               f"WHERE id = '{sandbox_id}'")
    other = Api(system.cp_url, system.add_team("beside"))
    request = f"DELETE /v1/sandboxes/{sandbox_id} HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        before = len(system.cp.descriptors())
        clients = []
        for _ in range(300):
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", system.cp_port), timeout=60)))
            clients[-1].sendall(request)
        wait.until(lambda: len(system.cp.descriptors()) >= before + 300, 20, "all to be accepted")
        time.sleep(1)
        for _ in range(2):
            other.destroy(other.create()["id"])
        system.sql(f"UPDATE sandboxes SET transition = '', version = version + 1 WHERE id = '{sandbox_id}'")
        answers = {client.recv(12) for client in clients}
    assert answers == {b"HTTP/1.1 204"}
    other.close()


def test_many_paused_sandboxes_do_not_hide_a_dead_one(system, make):
    victim = make()
    system.sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10500) "
               "INSERT INTO sandboxes (id, team_id, template, status, vcpus, memory_mb, timeout_sec, created_at, "
               f"last_updated) SELECT 'bulk-' || i, (SELECT team_id FROM sandboxes WHERE id = '{victim}'), 'minimal', "
               "'paused', 1, 512, 0, 1, 1 FROM n")
    try:
        os.kill(system.vm_pid(victim), signal.SIGKILL)
        system.wait_status(victim, "stopped", 45)
    finally:
        system.sql("DELETE FROM sandboxes WHERE id LIKE 'bulk-%'")


def test_what_a_host_keeps_in_error_is_shown_tried_and_destroyed(api, system, make, no_leaks):
    """The row says why, stays wanted, and follows when the host can run it again."""
    mended, given_up = make(), make()
    api.shell(mended, "echo here > /dev/shm/mark")
    api.pause(mended)
    assert system.agent.stop() == 0
    journals = {each: f"{system.sandboxes}/{each}/journal.json" for each in (mended, given_up)}
    with open(journals[mended], "rb") as journal:
        whole = journal.read()
    for path in journals.values():
        os.truncate(path, 0)
    system.start_agent()
    for each in journals:
        system.wait_status(each, "error", 30)
        shown = api.get(each)["error"]
        assert shown["reason"] == "journal_unreadable" and shown["message"], shown
    listed = {each["id"] for each in api.expect(200, "GET", "/v1/sandboxes?status=error").json() if "error" in each}
    assert listed == set(journals)
    assert api.exec_raw(mended, "true").status_code == 409
    assert api.request("POST", f"/v1/sandboxes/{mended}/resume").status_code in (409, 503)
    assert api.get(mended)["error"]["reason"] == "journal_unreadable", "a try that fails changes nothing"
    with open(journals[mended], "wb") as journal:
        journal.write(whole)
    assert "error" not in api.resume(mended)
    assert api.shell(mended, "cat /dev/shm/mark") == "here"
    api.destroy(given_up)
    assert api.status(given_up) == "stopped" and given_up not in leaks.vm_processes()
