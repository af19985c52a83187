"""Who may reach what: guests, teams, and callers without a key."""
import http.client
import json
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from harness import wait
from harness.agent_rpc import AgentRpc, RpcFailure
from harness.api import Api, error_of

PROBE = """
import json, socket, sys, threading
out = {}
def probe(host, port):
    key = f"{host}:{port}"
    with socket.socket() as s:
        s.settimeout(2.0)
        try:
            s.connect((host, port))
            out[key] = "connected"
        except Exception as error:
            out[key] = type(error).__name__
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
        try:
            u.sendto(b"from-guest " + key.encode(), (host, port))
        except OSError:
            pass
threads = [threading.Thread(target=probe, args=each) for each in json.loads(sys.argv[1])]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(json.dumps(out))
"""


# One packet to each of many ports.
FLOOD = """
import json, socket, sys
sent = 0
for port in range(10_000, 32_000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.sendto(b"x", (sys.argv[1], port))
            sent += 1
        except OSError:
            pass
print(json.dumps(sent))
"""


def host_addresses():
    listed = json.loads(subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True, timeout=10).stdout)
    return sorted({info["local"] for link in listed for info in link["addr_info"]} - {"127.0.0.1"})


class Listener:
    """A TCP and UDP port of the host, on all addresses, that notes who came."""

    def __init__(self):
        self.seen = []
        self.tcp = socket.create_server(("0.0.0.0", 0), backlog=64)
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("0.0.0.0", self.port))
        for each in (self.tcp, self.udp):
            each.settimeout(0.2)
        self.running = True
        self.threads = [threading.Thread(target=self.accept, daemon=True), threading.Thread(target=self.receive, daemon=True)]
        for thread in self.threads:
            thread.start()

    def accept(self):
        while self.running:
            try:
                peer, address = self.tcp.accept()
                self.seen.append(("tcp", address[0]))
                peer.close()
            except OSError:
                pass

    def receive(self):
        while self.running:
            try:
                data, address = self.udp.recvfrom(1500)
                self.seen.append(("udp", address[0], data[:40]))
            except OSError:
                pass

    def close(self):
        self.running = False
        for thread in self.threads:
            thread.join(2)
        self.tcp.close()
        self.udp.close()


@pytest.fixture(scope="module")
def listener():
    one = Listener()
    yield one
    one.close()


@pytest.fixture(scope="module")
def neighbour(system):
    sandbox = system.api.create()
    yield sandbox
    system.ensure_up()
    system.api.request("DELETE", f"/v1/sandboxes/{sandbox['id']}")


class Internet:
    """The machine on the internet that harness/own-host made: a server there, and its connections elsewhere."""

    ADDRESS = "198.51.100.1"
    PORT = 8080
    SERVER = f"""
import socket
listener = socket.create_server(("{ADDRESS}", {PORT}))
print("ready", flush=True)
while True:
    peer, address = listener.accept()
    peer.sendall(address[0].encode())
    peer.close()
"""

    def __init__(self):
        self.server = subprocess.Popen(self.command(self.SERVER), stdout=subprocess.PIPE)
        assert self.server.stdout.readline() == b"ready\n"

    @staticmethod
    def command(script, *arguments):
        return ["ip", "netns", "exec", "internet", sys.executable, "-c", script, *arguments]

    def reaches(self, address, port):
        script = f"import socket; socket.create_connection(('{address}', {port}), timeout=3)"
        return subprocess.run(self.command(script), capture_output=True, timeout=20, check=False).returncode == 0

    def close(self):
        self.server.kill()
        self.server.wait(10)


@pytest.fixture(scope="module")
def internet():
    one = Internet()
    yield one
    one.close()


class TestNetwork:
    def probe(self, api, sandbox_id, targets):
        answer = api.exec(sandbox_id, "python3", ["-c", PROBE, json.dumps(targets)], timeout_sec=120)
        result = json.loads(answer["stdout"])
        assert set(result) == {f"{host}:{port}" for host, port in targets}, answer
        return result

    def test_the_listener_itself_works(self, listener):
        address = host_addresses()[0] if host_addresses() else "127.0.0.1"
        socket.create_connection((address, listener.port), timeout=5).close()

    def test_no_guest_reaches_the_host(self, api, system, shared, listener):
        listener.seen.clear()
        own = api.get(shared)["host_ip"]
        addresses = [each for each in host_addresses()] + ["169.254.0.22", own]
        targets = [(address, port) for address in addresses for port in (listener.port, system.agent_port, system.cp_port)]
        reached = {key: how for key, how in self.probe(api, shared, targets).items() if how == "connected"}
        assert not reached, f"a guest reached the host: {reached}"
        assert not listener.seen, f"the host heard a guest: {listener.seen}"

    def test_no_guest_reaches_another(self, api, shared, neighbour):
        targets = [(neighbour["host_ip"], 49983), (neighbour["host_ip"], 22), ("10.12.0.0", 49983), ("10.12.0.1", 49983),
                   ("10.12.0.2", 49983), ("10.12.0.3", 49983)]
        result = self.probe(api, shared, targets)
        assert "connected" not in result.values(), result

    def test_private_link_local_and_metadata_ranges_are_closed(self, api, shared):
        targets = [("169.254.169.254", 80), ("10.0.0.1", 80), ("172.16.0.1", 80), ("192.168.0.1", 80), ("100.64.0.1", 80),
                   ("168.63.129.16", 80), ("100.100.100.200", 80), ("192.0.0.192", 80), ("198.18.0.1", 80), ("240.0.0.1", 80)]
        result = self.probe(api, shared, targets)
        assert "connected" not in result.values(), result

    def test_a_spoofed_source_does_not_leave(self, api, shared, listener):
        listener.seen.clear()
        addresses = host_addresses()
        script = "ip addr add 10.99.99.99/32 dev eth0 && " + " ; ".join(
            f"python3 -c 'import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"10.99.99.99\",0)); "
            f"s.sendto(b\"spoof\", (\"{address}\", {listener.port}))' || true" for address in addresses or ["169.254.0.22"])
        api.exec(shared, "bash", ["-c", script + "; ip addr del 10.99.99.99/32 dev eth0"])
        assert not listener.seen, listener.seen

    def test_a_guest_reaches_the_internet_by_the_hosts_address(self, api, shared, internet):
        script = f"import socket; print(socket.create_connection(('{internet.ADDRESS}', {internet.PORT}), 5).recv(99).decode())"
        assert api.exec(shared, "python3", ["-c", script])["stdout"] == "192.0.2.1\n"

    def test_a_guest_cannot_fill_the_hosts_connection_table(self, api, shared, neighbour, internet):
        def tracked():
            with open("/proc/sys/net/netfilter/nf_conntrack_count", encoding="ascii") as count:
                return int(count.read())

        before = tracked()
        sent = json.loads(api.exec(shared, "python3", ["-c", FLOOD, internet.ADDRESS], timeout_sec=120)["stdout"])
        after = tracked()
        print(f"{sent} packets to as many ports: {after - before} more connections on the host")
        assert sent >= 20_000
        assert after - before < 2048 + 200  # AGENT_CONNECTIONS, and what others do meanwhile
        script = f"import socket; print(socket.create_connection(('{internet.ADDRESS}', {internet.PORT}), 5).recv(99).decode())"
        assert api.exec(neighbour["id"], "python3", ["-c", script])["stdout"] == "192.0.2.1\n"

    def test_nobody_on_the_network_reaches_a_guest(self, api, system, shared, internet):
        own = api.get(shared)["host_ip"]
        socket.create_connection((own, 49983), timeout=5).close()  # as the agent does
        assert internet.reaches(internet.ADDRESS, internet.PORT)
        assert not internet.reaches(own, 49983)

    def test_the_guests_own_address_is_the_same_everywhere(self, api, shared, neighbour):
        for sandbox_id in (shared, neighbour["id"]):
            listed = api.shell(sandbox_id, "ip -4 -o addr show dev eth0 || hostname -I")
            assert "169.254.0.21" in listed

    def test_envd_wants_the_sandboxes_own_token(self, system, shared):
        address = f"http://{system.api.get(shared)['host_ip']}:49983"
        for headers in ({}, {"X-Access-Token": "0" * 32}):
            response = httpx.post(f"{address}/process.Process/List", json={}, headers=headers, timeout=10, trust_env=False)
            assert response.status_code == 401, response.text
            response = httpx.get(f"{address}/files", params={"path": "/etc/passwd"}, headers=headers, timeout=10, trust_env=False)
            assert response.status_code == 401, response.text


class TestKeys:
    def test_without_a_valid_key_nothing_opens(self, system, shared):
        """Every route without a key, and one with each kind of bad key: more would be slowed down."""
        routes = (("GET", "/v1/sandboxes"), ("POST", "/v1/sandboxes"), ("GET", f"/v1/sandboxes/{shared}"),
                  ("DELETE", f"/v1/sandboxes/{shared}"), ("POST", f"/v1/sandboxes/{shared}/exec"),
                  ("POST", f"/v1/sandboxes/{shared}/pause"), ("POST", f"/v1/sandboxes/{shared}/files/read"))
        attempts = [(None, *route) for route in routes]
        attempts += [(key, *routes[0]) for key in ("", "wrn_" + "0" * 40, "Bearer x", "x" * 10_000, system.api.key[:-1])]
        for key, method, path in attempts:
            stranger = Api(system.cp_url, key)
            response = stranger.request(method, path)
            stranger.close()
            assert response.status_code == 401, f"{method} {path}: {response.status_code}"
            assert error_of(response)[0] == "unauthorized"
        assert system.api.status(shared) == "running"

    def test_the_agent_wants_its_secret(self, system):
        for secret in (None, "0" * 64, system.secret[:-1]):
            with pytest.raises(RpcFailure) as failure:
                AgentRpc(system.agent_url, secret).list()
            assert failure.value.code == "unauthenticated"

    def test_the_agent_listens_on_loopback_only(self, system):
        for address in host_addresses():
            with pytest.raises(OSError):
                socket.create_connection((address, system.agent_port), timeout=2)


class TestTeams:
    @pytest.fixture(scope="class")
    def stranger(self, system):
        other = Api(system.cp_url, system.add_team("other"))
        assert other.list() == []
        yield other
        for each in other.list():
            other.request("DELETE", f"/v1/sandboxes/{each['id']}")
        other.close()

    @pytest.mark.parametrize("method,path,body", [
        ("GET", "", None), ("DELETE", "", None), ("POST", "/pause", None), ("POST", "/resume", None), ("POST", "/ping", None),
        ("POST", "/exec", {"cmd": "true"}), ("POST", "/files/read", {"path": "/etc/hostname"}),
        ("POST", "/files/stream/read", {"path": "/etc/hostname"}),
    ])
    def test_another_teams_sandbox_does_not_exist(self, system, shared, stranger, method, path, body):
        response = stranger.request(method, f"/v1/sandboxes/{shared}{path}", json=body)
        assert response.status_code == 404, response.text
        unknown = stranger.request(method, f"/v1/sandboxes/sb-aaaaaaaaaaaaaaaaaaaaaaaaaa{path}", json=body)
        assert error_of(response)[0] == error_of(unknown)[0]
        assert system.api.status(shared) == "running"

    def test_nor_for_uploads_and_streams(self, system, shared, stranger):
        for stream in (False, True):
            assert stranger.write(shared, "/root/planted", b"x", stream).status_code == 404
        with pytest.raises(Exception, match="404"):
            stranger.exec_socket(shared)
        assert system.api.exec(shared, "test", ["-e", "/root/planted"])["exit_code"] == 1

    def test_lists_are_apart(self, system, shared, stranger):
        mine = stranger.create()["id"]
        assert [each["id"] for each in stranger.list()] == [mine]
        assert mine not in [each["id"] for each in system.api.list()]
        assert shared in [each["id"] for each in system.api.list()]
        assert system.api.request("DELETE", f"/v1/sandboxes/{mine}").status_code == 404
        stranger.destroy(mine)


class Hammer:
    """Threads that ask a sandbox's port through the agent's proxy until stopped; each notes its last status."""

    THREADS = 32

    def __init__(self, system, sandbox_id, port):
        self.system = system
        self.path = f"/proxy/{sandbox_id}/{port}/"
        self.statuses = set()
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(self.THREADS)]

    def run(self):
        headers = {"Proxy-Authorization": f"Bearer {self.system.secret}"}
        while not self.done.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.system.agent_port, timeout=20)
            try:
                connection.request("GET", self.path, headers=headers)
                self.statuses.add(connection.getresponse().status)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self.threads), "a proxied request hangs"


class Counter:
    """A port of the host's loopback that counts who connects."""

    def __init__(self):
        self.hits = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.hits += 1
            peer.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()


@pytest.mark.parametrize("end", ["deleted", "rebooted"])
def test_no_request_for_a_sandbox_that_ends_reaches_the_host(api, system, end):
    """Requests that are tried again while their sandbox goes must not end up at the host's own ports."""
    counter = Counter()
    for _ in range(3):
        sandbox_id = api.create()["id"]
        # Much to give back makes the end long.
        api.shell(sandbox_id, "head -c 96M /dev/zero > /dev/shm/ballast")
        with Hammer(system, sandbox_id, counter.port) as hammer:
            wait.until(lambda: 502 in hammer.statuses, 20, "the first requests to be refused")
            if end == "deleted":
                api.destroy(sandbox_id)
            else:
                api.exec_raw(sandbox_id, "sh", ["-c", "echo b > /proc/sysrq-trigger"], timeout_sec=10)
            wait.until(lambda: system.rpc.status(sandbox_id) is None, 30, "the sandbox to be gone")
    with socket.create_connection(("127.0.0.1", counter.port), timeout=5):
        wait.until(lambda: counter.hits > 0, 5, "the count of a connection of our own")
    counter.close()
    assert counter.hits == 1, f"{counter.hits - 1} requests of strangers reached the host's loopback"
