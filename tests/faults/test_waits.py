"""Clients that wait for nothing, or for ever, hold nothing for ever: every wait for a peer has an end."""
import contextlib
import json
import resource
import select
import socket

import httpx
import websocket

from harness import wait
from harness.raw_http import read_101

DOMAIN = "sandbox.test"
CLIENTS = 40
SILENT = 4300  # more than the control plane has places
OF_ONE_SANDBOX = 1024  # requests to its ports at a time
# Accepts, and never answers a request; at /upgrade answers 101 and then keeps its side open whatever the client does.
SERVER = r'''
import socket, threading, time

def hold(peer):
    head = b""
    while b"\r\n\r\n" not in head:
        piece = peer.recv(65536)
        if not piece:
            return
        head += piece
    if head.startswith(b"GET /upgrade "):
        peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: held\r\n\r\n")
    time.sleep(3600)

with socket.create_server(("0.0.0.0", 8080), backlog=512) as server:
    while True:
        threading.Thread(target=hold, args=(server.accept()[0],), daemon=True).start()
'''


def ask_to_upgrade(system, sandbox_id, path):
    raw = socket.create_connection(("127.0.0.1", system.proxy_port), timeout=60)
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 8080-{sandbox_id}.{DOMAIN}\r\nConnection: Upgrade\r\n"
                "Upgrade: held\r\n\r\n".encode())
    return raw


def counts(system):
    return {program.name: len(program.descriptors()) for program in (system.cp, system.agent)}


def test_who_leaves_holds_nothing_and_keeps_nobody_awake(api, system, make):
    """Upgrades that are never answered, and tunnels whose far half stays open. Both would keep the sandbox from its
    auto-pause."""
    sandbox_id = make(timeout_sec=5)
    api.write_ok(sandbox_id, "/tmp/server.py", SERVER.encode())
    assert api.exec_raw(sandbox_id, "python3", ["/tmp/server.py"], background=True).status_code == 202
    wait.until(lambda: read_101(ask_to_upgrade(system, sandbox_id, "/upgrade")).close() is None, 30, "the server")
    before = counts(system)
    unanswered = [ask_to_upgrade(system, sandbox_id, "/silent") for _ in range(CLIENTS)]
    tunnels = [read_101(ask_to_upgrade(system, sandbox_id, "/upgrade")) for _ in range(CLIENTS)]
    wait.until(lambda: all(counts(system)[name] >= before[name] + 2 * CLIENTS for name in before), 30,
               "all of them to be under way")
    for client in unanswered + tunnels:
        client.close()
    system.wait_status(sandbox_id, "paused", 150)
    wait.until(lambda: all(counts(system)[name] <= before[name] + 5 for name in before), 30,
               f"the descriptors to come back to {before}")


@contextlib.contextmanager
def many_descriptors():
    """A list of sockets, of which there may be many and which are closed at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SILENT + 500, f"this test needs {SILENT} descriptors, and may have {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = []
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_say_nothing_take_no_place(system):
    with many_descriptors() as silent:
        for index in range(SILENT):
            silent.append(socket.create_connection(("127.0.0.1", system.cp_port), timeout=60))
            if index % 500 == 499 or index == SILENT - 1:
                assert httpx.get(f"{system.cp_url}/health", timeout=60, trust_env=False).status_code == 200


def test_traffic_of_one_sandbox_leaves_the_agent_to_others(api, system, shared):
    """Its requests wait for a program that never takes them; those beyond its share are refused, and the control plane
    still reaches the agent."""
    program = "import socket, time\nserver = socket.create_server(('0.0.0.0', 8080), backlog=4000)\ntime.sleep(3600)"
    answer = api.exec_raw(shared, "python3", ["-c", program], background=True)
    assert answer.status_code == 202
    request = f"GET / HTTP/1.1\r\nHost: 8080-{shared}.{DOMAIN}\r\n\r\n".encode()
    listening = "ss -ltn 2>/dev/null | grep -q :8080 || grep -q ' 00000000:1F90 ' /proc/net/tcp"
    wait.until(lambda: api.exec(shared, "sh", ["-c", listening])["exit_code"] == 0, 30, "the port to open")
    with many_descriptors() as clients:
        for _ in range(OF_ONE_SANDBOX + 40):
            clients.append(socket.create_connection(("127.0.0.1", system.proxy_port), timeout=60))
            clients[-1].sendall(request)
        wait.until(lambda: answered(clients) == 40, 60, "those beyond the share to be refused")
        assert api.exec(shared, "true")["exit_code"] == 0
    api.request("DELETE", f"/v1/sandboxes/{shared}/processes/{answer.json()['pid']}")


def answered(clients):
    """How many have an answer, which must be the refusal."""
    poll = select.poll()
    by_number = {each.fileno(): each for each in clients}
    for number in by_number:
        poll.register(number, select.POLLIN)
    ready = poll.poll(0)
    for number, _ in ready:
        head = by_number[number].recv(13, socket.MSG_PEEK)
        assert head.startswith(b"HTTP/1.1 503 "), head
    return len(ready)


def test_who_does_not_authenticate_in_time_is_told(system, shared):
    address = f"ws://127.0.0.1:{system.cp_port}/v1/sandboxes/{shared}/exec/stream"
    silent = websocket.create_connection(address, timeout=60)
    told = json.loads(silent.recv())
    assert told["type"] == "error" and told["fatal"] is True and told["code"] == "timeout", told
    silent.close()
