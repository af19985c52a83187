"""Traffic to the ports of sandboxes: by host name and by header, streamed, upgraded, woken, refused."""
import hashlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from harness import wait
from harness.raw_http import read_101

DOMAIN = "sandbox.test"
SERVER = r'''
import hashlib, http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, status=200, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path.startswith("/sse"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number in range(int(self.path.split("=")[1])):
                self.wfile.write(b"data: %d\n\n" % number)
                self.wfile.flush()
                time.sleep(0.3)
            self.close_connection = True
        elif self.path == "/upgrade":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            while data := self.connection.recv(65536):
                self.connection.sendall(data.upper())
            self.close_connection = True
        else:
            self.answer(json.dumps({"path": self.path, "headers": dict(self.headers.items())}).encode())

    def do_POST(self):
        digest, size = hashlib.sha256(), 0
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            size += len(piece)
            left -= len(piece)
        self.answer(json.dumps({"size": size, "sha": digest.hexdigest()}).encode(), 201)

    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
'''


def serve(api, sandbox_id, address="0.0.0.0", port=8080):
    api.write_ok(sandbox_id, "/tmp/server.py", SERVER.encode())
    response = api.exec_raw(sandbox_id, "python3", ["/tmp/server.py", address, str(port)], background=True)
    assert response.status_code == 202, response.text


class Traffic:
    def __init__(self, system, sandbox_id, port=8080):
        self.sandbox_id = sandbox_id
        self.host = f"{port}-{sandbox_id}.{DOMAIN}"
        self.address = ("127.0.0.1", system.proxy_port)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{system.proxy_port}", headers={"Host": self.host}, timeout=60,
                                 trust_env=False)

    def get(self, path="/", **options):
        return self.http.get(path, **options)


@pytest.fixture(scope="module", name="web")
def fixture_web(system, shared):
    serve(system.api, shared)
    traffic = Traffic(system, shared)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the server in the sandbox")
    yield traffic
    traffic.http.close()


def test_the_host_name_leads_to_a_port(web, system):
    answer = web.get("/a%20b/c?x=1&y=%2F")
    assert answer.status_code == 200 and answer.json()["path"] == "/a%20b/c?x=1&y=%2F", "as it was sent"
    seen = {name.lower(): value for name, value in answer.json()["headers"].items()}
    assert seen["host"] == web.host and seen["x-forwarded-for"] == "127.0.0.1" and seen["x-forwarded-host"] == web.host
    assert "proxy-authorization" not in seen, "the agent's secret is not for guests"
    through_api = httpx.get(f"{system.cp_url}/p", headers={"Host": f"{web.host}:8000"}, trust_env=False)
    assert through_api.json()["path"] == "/p"


def test_headers_lead_there_too(web, system):
    url = f"http://127.0.0.1:{system.proxy_port}/h"
    headers = {"E2b-Sandbox-Id": web.sandbox_id, "E2b-Sandbox-Port": "8080", "Authorization": "Bearer mine",
               "Connection": "close, x-hop", "X-Hop": "1"}
    seen = {n.lower(): v for n, v in httpx.get(url, headers=headers, trust_env=False).json()["headers"].items()}
    assert seen["authorization"] == "Bearer mine" and "x-hop" not in seen
    for wrong in ({}, {"E2b-Sandbox-Id": "../etc"}, {"E2b-Sandbox-Id": web.sandbox_id, "E2b-Sandbox-Port": "0"}):
        assert httpx.get(url, headers=wrong, trust_env=False).status_code == 400


def test_what_opens_something_of_ours_reaches_no_program(web, api):
    sandbox = api.get(web.sandbox_id)
    secrets = [api.key, *(value for name, value in sandbox.items() if name.endswith("_token"))]
    headers = dict(zip(("X-API-Key", "x-access-token", "E2b-Traffic-Access-Token"), secrets))
    for more in ({}, {"Connection": "Upgrade", "Upgrade": "echo"}):
        seen = web.get("/headers", headers={**headers, **more, "X-Mine": "1"})
        assert seen.status_code == 200 and "X-Mine" in seen.text
        assert not [secret for secret in secrets if secret in seen.text], seen.text


def test_nobody_else_says_who_the_client_is(web):
    claims = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "evil.test", "X-Forwarded-Proto": "https",
              "X-Forwarded-Port": "1", "Forwarded": "for=203.0.113.9", "X-Real-Ip": "203.0.113.9"}
    seen = {n.lower(): v for n, v in web.get("/h", headers=claims).json()["headers"].items()}
    assert (seen["x-forwarded-for"], seen["x-forwarded-host"], seen["x-forwarded-proto"]) == ("127.0.0.1", web.host, "http")
    assert not {"x-forwarded-port", "forwarded", "x-real-ip"} & set(seen)


def test_large_bodies_go_through(web):
    content = bytes(range(256)) * 4096 * 20
    for body in (content, (content[i:i + 100_000] for i in range(0, len(content), 100_000))):
        headers = {"Content-Length": str(len(content))}
        answer = web.http.post("/echo", content=body, headers=headers)
        assert answer.status_code == 201
        assert answer.json() == {"size": len(content), "sha": hashlib.sha256(content).hexdigest()}


def test_events_come_as_they_happen(web):
    began, seen = time.monotonic(), []
    with web.http.stream("GET", "/sse?n=8") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        for text in answer.iter_text():
            seen.append((time.monotonic() - began, text))
    assert "".join(t for _, t in seen) == "".join(f"data: {n}\n\n" for n in range(8))
    # Held back on the way they would come at once; the server takes 0.25 s for each.
    assert seen[-1][0] - seen[0][0] > 0.7, seen


def upgraded(traffic, limit_sec=60):
    raw = socket.create_connection(traffic.address, timeout=limit_sec)
    raw.sendall(f"GET /upgrade HTTP/1.1\r\nHost: {traffic.host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n".encode())
    return read_101(raw)


def test_upgrades_become_tunnels(web):
    raw = upgraded(web)
    sent = b"hello " * 100_000
    raw.settimeout(30)
    got, at = b"", 0
    while len(got) < len(sent):
        if at < len(sent):
            at += raw.send(sent[at:at + 20_000])
        got += raw.recv(65536)
    assert got == sent.upper()
    raw.shutdown(socket.SHUT_WR)
    assert raw.recv(10) == b""


def test_refusals_have_the_texts_clients_look_for(web, system):
    closed = httpx.get(web.http.base_url, headers={"Host": f"9999-{web.sandbox_id}.{DOMAIN}"}, trust_env=False, timeout=30)
    assert closed.status_code == 502
    assert closed.json() == {"sandboxId": web.sandbox_id, "message": "The sandbox is running but port is not open",
                             "port": 9999, "code": 502}
    nobody = f"8080-sb-{'a' * 26}.{DOMAIN}"
    unknown = httpx.get(web.http.base_url, headers={"Host": nobody}, trust_env=False)
    assert unknown.status_code == 502 and unknown.json()["message"] == "The sandbox was not found"
    page = httpx.get(web.http.base_url, headers={"Host": nobody, "Accept": "text/html,*/*"}, trust_env=False)
    assert page.status_code == 502 and page.text.startswith("<!doctype html>") and "was not found" in page.text


def test_the_guest_agent_is_there_without_its_host_routes(web, api):
    envd = {"E2b-Sandbox-Id": web.sandbox_id, "Host": "127.0.0.1"}
    token = api.get(web.sandbox_id)["access_token"]
    assert web.get("/health", headers=envd).status_code == 204
    assert web.get("/envs", headers=envd).status_code == 401
    assert web.get("/envs", headers={**envd, "X-Access-Token": token}).json()["WRENN_SANDBOX"] == "true"
    for path in ("/init", "/quiesce", "/freeze", "/unfreeze", "/fsfreeze", "/fsthaw", "/upgrade", "/collapse", "/init/",
                 "//init", "/%69nit"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = web.http.request(method, path, headers={**envd, "X-Access-Token": token}, json={})
            assert answer.status_code == 404, (method, path, answer.text)


def test_ports_that_are_not_public_want_the_token(api, system):
    sandbox = api.create(allow_public_traffic=False)
    try:
        serve(api, sandbox["id"])
        traffic = Traffic(system, sandbox["id"])
        token = sandbox["traffic_access_token"]
        wait.until(lambda: traffic.get(headers={"E2B-Traffic-Access-Token": token}).status_code == 200, 30, "the server")
        for headers in ({}, {"E2b-Traffic-Access-Token": token[:-1] + "x"}, {"E2b-Traffic-Access-Token": ""},
                        {"X-Access-Token": sandbox["access_token"]}, {"X-Access-Token": token},
                        {"E2b-Traffic-Access-Token": sandbox["access_token"]}):
            assert traffic.get(headers=headers).status_code == 403, headers
        envd = {"E2b-Sandbox-Id": sandbox["id"], "Host": "127.0.0.1", "X-Access-Token": token}
        assert traffic.get("/envs", headers=envd).status_code == 401, "the ports' token is not the guest agent's"
        asks = {"Origin": "https://app.test", "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "e2b-traffic-access-token"}
        allowed = traffic.http.options("/", headers=asks)
        assert allowed.status_code == 204 and allowed.headers["Access-Control-Allow-Origin"] == "*"
        assert allowed.headers["Access-Control-Allow-Headers"] == "e2b-traffic-access-token"
        assert traffic.http.put("/", headers={"Origin": "https://app.test"}).status_code == 403
        assert sandbox["allow_public_traffic"] is False
        assert token not in json.dumps(api.list())
    finally:
        api.destroy(sandbox["id"])


@pytest.mark.parametrize("way", ["request", "upgrade"])
def test_traffic_wakes_a_paused_sandbox_that_wants_it(api, system, make, way):
    sandbox_id = make(auto_resume=True)
    serve(api, sandbox_id)
    traffic = Traffic(system, sandbox_id)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the server")
    api.pause(sandbox_id)
    if way == "request":
        assert traffic.get("/woken").json()["path"] == "/woken"
    else:
        upgraded(traffic).close()
    assert api.status(sandbox_id) == "running"


def test_a_crowd_wakes_it_once_and_all_are_served(api, system, make):
    sandbox_id = make(auto_resume=True)
    serve(api, sandbox_id)
    traffic = Traffic(system, sandbox_id)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the server")
    api.pause(sandbox_id)
    envd = {"E2b-Sandbox-Id": sandbox_id, "Host": "127.0.0.1", "X-Access-Token": "wrong"}
    assert traffic.get("/envs", headers=envd).status_code == 401
    assert api.status(sandbox_id) == "paused", "who may not come in wakes nobody"
    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda number: traffic.get(f"/{number}"), range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20, [answer.text for answer in answers]
    assert api.status(sandbox_id) == "running"


def test_one_that_does_not_want_it_stays_paused(api, system, make):
    sandbox_id = make()
    serve(api, sandbox_id)
    traffic = Traffic(system, sandbox_id)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the server")
    api.pause(sandbox_id)
    answer = traffic.get()
    assert answer.status_code == 502 and answer.json()["message"] == "The sandbox was not found"
    assert api.status(sandbox_id) == "paused"


def test_traffic_is_activity_and_a_pause_ends_it(api, system, make):
    sandbox_id = make(timeout_sec=3)
    serve(api, sandbox_id)
    traffic = Traffic(system, sandbox_id)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the server")
    with traffic.http.stream("GET", "/sse?n=25") as answer:
        assert "data: 24" in "".join(answer.iter_text()), "a stream keeps it awake"
    assert api.status(sandbox_id) == "running"
    for _ in range(8):
        assert traffic.get().status_code == 200
        time.sleep(1)
    assert api.status(sandbox_id) == "running"
    wait.until(lambda: api.status(sandbox_id) == "paused", 20, "the auto-pause")
    api.resume(sandbox_id)
    with traffic.http.stream("GET", "/sse?n=1000") as answer:
        pieces = answer.iter_text()
        next(pieces)
        api.pause(sandbox_id)
        with pytest.raises(httpx.HTTPError):
            for _ in pieces:
                pass


def test_ports_open_on_localhost_only_are_reachable(api, system, shared):
    serve(api, shared, "127.0.0.1", 3000)
    traffic = Traffic(system, shared, 3000)
    wait.until(lambda: traffic.get().status_code == 200, 30, "the forwarded port")
    api.shell(shared, "pkill -f 'server.py 127.0.0.1 3000'")
    wait.until(lambda: traffic.get().status_code == 502, 15, "the port to close")
