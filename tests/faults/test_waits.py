"""Clients that wait for nothing, or for ever, hold nothing for ever: every wait for a peer has an end."""
import resource
import socket

import httpx

from harness import wait
from harness.raw_http import read_101

DOMAIN = "sandbox.test"
CLIENTS = 40
SILENT = 4300  # more than the control plane has places
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


def test_connections_that_say_nothing_take_no_place(system):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert hard > SILENT + 500, f"this test needs {SILENT} descriptors, and may have {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    silent = []
    try:
        for index in range(SILENT):
            silent.append(socket.create_connection(("127.0.0.1", system.cp_port), timeout=60))
            if index % 500 == 499 or index == SILENT - 1:
                assert httpx.get(f"{system.cp_url}/health", timeout=60, trust_env=False).status_code == 200
    finally:
        for each in silent:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
