"""A client that goes away in the middle of any call leaves no orphan and no half state."""
import json
import socket
import time

import pytest

from harness import wait
from harness.api import ApiFailure


def live(api):
    return {each["id"]: each["status"] for each in api.list() if each["status"] not in ("stopped", "error")}


def in_step(system):
    rows, agent = live(system.api), {key: each["status"] for key, each in system.rpc.list()[0].items()}
    assert rows == agent, f"rows {rows}, agent {agent}"
    return True


def wait_in_step(system):
    wait.until(lambda: in_step(system), 20, "rows and agent to agree", 0.1)


def bring(api, sandbox_id, wanted, transition):
    """The request that was hung up on may begin only now; then ours comes second, and its end is the same."""
    try:
        transition(sandbox_id)
    except ApiFailure as failure:
        assert failure.response.status_code == 409, failure
    wait.until(lambda: api.status(sandbox_id) == wanted, 20, f"the sandbox to be {wanted}", 0.1)


@pytest.mark.parametrize("after_sec", [0.0, 0.05, 0.3])
def test_create(system, api, after_sec, no_leaks):
    """The transition goes on: in the end there is a whole sandbox, listed, that can be destroyed; or none."""
    before = set(live(api))
    api.send_and_hang_up("POST", "/v1/sandboxes", b"{}", after_sec=after_sec)
    time.sleep(0.3)
    wait_in_step(system)
    for sandbox_id in set(live(api)) - before:
        assert api.status(sandbox_id) == "running"
        assert api.exec(sandbox_id, "true")["exit_code"] == 0
        api.destroy(sandbox_id)


@pytest.mark.parametrize("after_sec", [0.0, 0.05, 0.2])
def test_pause_resume_destroy(system, api, make, after_sec, no_leaks):
    sandbox_id = make()
    api.write_ok(sandbox_id, "/root/mark", b"kept")
    api.send_and_hang_up("POST", f"/v1/sandboxes/{sandbox_id}/pause", after_sec=after_sec)
    wait_in_step(system)
    if api.status(sandbox_id) == "running":
        bring(api, sandbox_id, "paused", api.pause)
    api.send_and_hang_up("POST", f"/v1/sandboxes/{sandbox_id}/resume", after_sec=after_sec)
    wait_in_step(system)
    if api.status(sandbox_id) == "paused":
        bring(api, sandbox_id, "running", api.resume)
    assert api.read_ok(sandbox_id, "/root/mark") == b"kept"
    api.send_and_hang_up("DELETE", f"/v1/sandboxes/{sandbox_id}", after_sec=after_sec)
    wait_in_step(system)
    assert api.status(sandbox_id) in ("running", "stopped")


def no_process(api, sandbox_id, pattern):
    wait.until(lambda: api.exec(sandbox_id, "pgrep", ["-f", pattern])["exit_code"] == 1, 15, f"{pattern!r} to be gone", 0.2)


def test_exec_takes_its_command_along(api, shared):
    body = json.dumps({"cmd": "sleep", "args": ["4321"], "timeout_sec": 600}).encode()
    api.send_and_hang_up("POST", f"/v1/sandboxes/{shared}/exec", body, after_sec=0.5)
    no_process(api, shared, "^sleep 4321")


def test_exec_stream_takes_its_command_along(api, shared):
    stream = api.exec_socket(shared)
    stream.send({"type": "start", "cmd": "sleep", "args": ["5432"]})
    assert stream.receive()["type"] == "start"
    stream.drop()
    no_process(api, shared, "^sleep 5432")


def test_exec_stream_that_never_starts(api, system, shared):
    sockets = [api.exec_socket(shared) for _ in range(5)]
    for each in sockets:
        each.drop()
    assert api.exec(shared, "true")["exit_code"] == 0
    wait.until(lambda: system.cp.alive() and system.agent.alive(), 1, "the programs to live")


@pytest.mark.parametrize("route", ["write", "stream/write"])
def test_upload(api, shared, route):
    boundary = "cut"
    head = (f"--{boundary}\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/root/half\r\n--{boundary}\r\n"
            "Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n").encode()
    # Announces more than it sends.
    api.send_and_hang_up("POST", f"/v1/sandboxes/{shared}/files/{route}", head + bytes(4 << 20), after_sec=0.2,
                         content_type=f"multipart/form-data; boundary={boundary}", announced=64 << 20)
    wait.until(lambda: api.exec(shared, "test", ["-e", "/root/half"])["exit_code"] == 1, 15,
               "no half file to be left under the name")


@pytest.mark.parametrize("route", ["read", "stream/read"])
def test_download(api, system, shared, route):
    api.shell(shared, "head -c 48M /dev/zero > /root/source")
    before = system.cp.rss_bytes()
    for _ in range(3):
        api.send_and_hang_up("POST", f"/v1/sandboxes/{shared}/files/{route}", b'{"path":"/root/source"}', after_sec=0.2)
    assert api.exec(shared, "true")["exit_code"] == 0
    assert system.cp.rss_bytes() - before < 64 << 20
    api.shell(shared, "rm /root/source")


@pytest.mark.parametrize("method,path", [("GET", "/v1/sandboxes"), ("GET", "/v1/sandboxes/{id}"), ("POST", "/v1/sandboxes/{id}/ping"),
                                         ("GET", "/openapi.yaml"), ("GET", "/health")])
def test_quick_calls(api, shared, method, path):
    for _ in range(10):
        api.send_and_hang_up(method, path.replace("{id}", shared), after_sec=0)
    assert api.status(shared) == "running"


def test_half_a_request(api, system, shared):
    sockets = []
    for text in (b"", b"GET", b"POST /v1/sandboxes HTTP/1.1\r\n", b"POST /v1/sandboxes HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"):
        raw = socket.create_connection(("127.0.0.1", system.cp_port), timeout=5)
        raw.sendall(text)
        sockets.append(raw)
    assert api.status(shared) == "running"
    for raw in sockets:
        raw.close()


def test_descriptors_come_back(api, system, shared):
    """After all that, a round of every fault leaves neither program with more open descriptors."""
    def round_of_faults():
        body = json.dumps({"cmd": "sleep", "args": ["1"]}).encode()
        api.send_and_hang_up("POST", f"/v1/sandboxes/{shared}/exec", body, after_sec=0.02)
        stream = api.exec_socket(shared)
        stream.send({"type": "start", "cmd": "sleep", "args": ["30"]})
        stream.receive()
        stream.drop()
        api.send_and_hang_up("POST", f"/v1/sandboxes/{shared}/files/read", b'{"path":"/etc/hostname"}', after_sec=0)

    def counts():
        return {program.name: len(program.descriptors()) for program in (system.cp, system.agent)}

    round_of_faults()
    time.sleep(3)
    before = counts()
    for _ in range(8):
        round_of_faults()
    wait.until(lambda: all(counts()[name] <= before[name] + 3 for name in before), 20,
               f"descriptors to come back to {before}", 0.5)
