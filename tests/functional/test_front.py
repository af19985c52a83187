"""What strangers and other teams can do to the control plane: keys, unread answers, long lists, what errors tell."""
import json
import os
import socket
import threading

import httpx
import pytest

from harness import wait
from harness.api import Api, error_of
from harness.sampler import Sampler
from harness.system import TRUSTED_PROXY

MIB = 1 << 20
BAD_KEYS = 31
UNREAD = 34  # of 8 MiB: more than all may hold together
MANY = 1500  # files, whose paths make a list of 5 MiB


class Watch(Sampler):
    """The control plane's memory above what it was, and whether it answers."""

    def __init__(self, system):
        super().__init__()
        self.system = system
        self.before = system.cp.rss_bytes()
        self.grown = 0
        self.failures = []
        self.slowest = 0.0

    def sample(self):
        self.grown = max(self.grown, self.system.cp.rss_bytes() - self.before)
        watch = wait.Stopwatch()
        try:
            answer = httpx.get(f"{self.system.cp_url}/health", timeout=30, trust_env=False)
            if answer.status_code != 200:
                self.failures.append(answer.text)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
        self.slowest = max(self.slowest, watch.seconds())


@pytest.fixture(scope="module", name="other")
def fixture_other(system):
    """A second team with a sandbox."""
    team = Api(system.cp_url, system.add_team("front-other"))
    team.sandbox_id = team.create()["id"]
    yield team
    team.request("DELETE", f"/v1/sandboxes/{team.sandbox_id}")
    team.close()


def send_unread(system, path, body):
    """A request whose answer is not read: its connection, with as little room for the answer as there is."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", system.cp_port))
    content = json.dumps(body).encode()
    raw.sendall((f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {system.key}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(content)}\r\n\r\n").encode() + content)
    return raw


def has_begun(raw):
    raw.settimeout(0)
    try:
        return bool(raw.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_bad_keys_lock_no_good_one_out(system, api):
    # An address of its own, so that the failures are this test's.
    stranger = httpx.HTTPTransport(local_address="127.0.0.77")
    with httpx.Client(base_url=system.cp_url, transport=stranger, timeout=30) as client:
        answers = [client.get("/v1/sandboxes", headers={"X-API-Key": f"wrn_{number:040x}"}) for number in range(BAD_KEYS)]
        assert answers[0].status_code == 401 and error_of(answers[0])[0] == "unauthorized"
        assert answers[-1].status_code == 429 and answers[-1].headers["Retry-After"]
        fresh = system.add_team("front-fresh")
        for key in (fresh, api.key):
            assert client.get("/v1/sandboxes", headers={"X-API-Key": key}).status_code == 200
        assert client.get("/v1/sandboxes", headers={"X-API-Key": "wrn_" + "0" * 40}).status_code == 429


def test_the_named_proxy_tells_who_its_client_is(system, api):
    def ask(client, key, **headers):
        return client.get("/v1/sandboxes", headers={"X-API-Key": key, **headers}).status_code

    bad = "wrn_" + "1" * 40
    proxy = httpx.HTTPTransport(local_address=TRUSTED_PROXY)
    with httpx.Client(base_url=system.cp_url, transport=proxy, timeout=30) as client:
        for number in range(BAD_KEYS):
            ask(client, bad, **{"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.1"})
        assert ask(client, bad, **{"X-Forwarded-For": "203.0.113.1"}) == 429
        assert ask(client, bad, **{"X-Forwarded-For": "203.0.113.2"}) == 401, "another client of the same proxy"
        assert ask(client, api.key, **{"X-Forwarded-For": "203.0.113.1"}) == 200
    stranger = httpx.HTTPTransport(local_address="127.0.0.78")
    with httpx.Client(base_url=system.cp_url, transport=stranger, timeout=30) as client:
        answers = [ask(client, bad, **{"X-Forwarded-For": f"203.0.113.{number}"}) for number in range(BAD_KEYS)]
        assert answers[-1] == 429, "its claims change nothing"


def test_answers_are_not_for_caches(api, shared):
    for path in ("/v1/sandboxes", f"/v1/sandboxes/{shared}", "/v1/sandboxes/sb-none", "/health"):
        assert api.request("GET", path).headers["Cache-Control"] == "no-store", path
    sandbox = api.get(shared)
    assert len(sandbox["traffic_access_token"]) == 64 and sandbox["traffic_access_token"] != sandbox["access_token"]
    assert sandbox["traffic_access_token"] not in json.dumps(api.list())


@pytest.mark.timeout(300)
def test_unread_answers_of_one_team_stop_no_other(system, api, shared, other):
    command = {"cmd": "head", "args": ["-c", str(8 * MIB), "/dev/zero"], "timeout_sec": 200}
    echoes, done = [], threading.Event()

    def work():
        while not done.is_set():
            echoes.append(other.exec_raw(other.sandbox_id, "echo", ["here"], timeout_sec=60))
            done.wait(0.2)

    neighbour = threading.Thread(target=work)
    with Watch(system) as watch:
        unread = [send_unread(system, f"/v1/sandboxes/{shared}/exec", command) for _ in range(UNREAD)]
        neighbour.start()
        try:
            wait.until(lambda: all(has_begun(raw) for raw in unread), 240, "every answer to begin", every_sec=0.5)
            seen = len(echoes)
            wait.until(lambda: len(echoes) >= seen + 3, 60, "the other team's commands, beside what nobody reads")
        finally:
            done.set()
            neighbour.join(70)
            heads = [answer_of(raw) for raw in unread]
    print(f"grown {watch.grown / MIB:.0f} MiB, slowest /health {watch.slowest * 1000:.0f} ms, {heads.count(200)} answered")
    assert {echo.status_code for echo in echoes} == {200}, [echo.text for echo in echoes if echo.status_code != 200][0]
    assert heads.count(200) >= 4 and set(heads) <= {200, 503}, heads
    assert watch.grown < 256 * MIB, f"the control plane grew by {watch.grown / MIB:.0f} MiB"
    assert not watch.failures, watch.failures[0]
    assert api.exec(shared, "true")["exit_code"] == 0, "what was held is given back"


def answer_of(raw):
    """The status of an answer that has begun; the rest stays unread."""
    raw.settimeout(5)
    with raw:
        return int(raw.recv(13)[9:12])


@pytest.mark.timeout(300)
def test_long_lists_that_nobody_reads_stay_small(system, api, shared):
    folder = "/tmp/" + "/".join(["d" * 200] * 16)
    api.shell(shared, f"mkdir -p {folder} && cd {folder} && seq -f '%0100.0f' {MANY} | xargs touch", timeout_sec=200)
    whole = api.expect(200, "POST", f"/v1/sandboxes/{shared}/files/list", json={"path": folder}).json()["entries"]
    assert len(whole) == MANY and whole[0]["path"] == f"{folder}/{'1'.zfill(100)}" and whole[0]["type"] == "file"
    with Watch(system) as watch:
        unread = [send_unread(system, f"/v1/sandboxes/{shared}/files/list", {"path": folder}) for _ in range(10)]
        wait.until(lambda: all(has_begun(raw) for raw in unread), 120, "every list to begin", every_sec=0.5)
        assert api.exec(shared, "true")["exit_code"] == 0
        assert {answer_of(raw) for raw in unread} == {200}
    print(f"grown {watch.grown / MIB:.0f} MiB, slowest /health {watch.slowest * 1000:.0f} ms")
    assert watch.grown < 110 * MIB, f"the control plane grew by {watch.grown / MIB:.0f} MiB"
    assert not watch.failures, watch.failures[0]


def test_what_the_host_refuses_is_its_failure(system, api, make):
    sandbox_id = make()
    os.rename(system.snapshots, f"{system.snapshots}.away")
    try:
        with open(system.snapshots, "w", encoding="ascii"):
            pass
        refused = api.request("POST", f"/v1/sandboxes/{sandbox_id}/pause")
    finally:
        os.remove(system.snapshots)
        os.rename(f"{system.snapshots}.away", system.snapshots)
    assert refused.status_code == 502, refused.text
    assert error_of(refused) == ("agent_error", "the sandbox's host failed")
    assert api.exec(sandbox_id, "true")["exit_code"] == 0
    api.pause(sandbox_id)


def test_nobody_hears_where_the_host_is(system, api, shared):
    system.agent.kill()
    try:
        port = httpx.get(f"http://127.0.0.1:{system.proxy_port}/", headers={"Host": f"8080-{shared}.sandbox.test"},
                         timeout=60, trust_env=False)
        page = httpx.get(f"http://127.0.0.1:{system.proxy_port}/", timeout=60, trust_env=False,
                         headers={"Host": f"8080-{shared}.sandbox.test", "Accept": "text/html"})
        command = api.exec_raw(shared, "true")
        files = api.request("POST", f"/v1/sandboxes/{shared}/files/list", json={"path": "/"})
    finally:
        system.ensure_up()
    for answer in (port, page, command, files):
        assert answer.status_code == 503, answer.text
        for inner in ("127.0.0.1", str(system.agent_port), "refused", "/var/lib", "hostagent"):
            assert inner not in answer.text, answer.text
        assert answer.headers["X-Request-Id"]
    assert port.json()["message"] == error_of(command)[1] == "the sandbox's host does not answer"
    wait.until(lambda: api.exec_raw(shared, "true").status_code == 200, 60, "the sandbox to be taken over")
