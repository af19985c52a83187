"""Where a request ends, and whose it is: raw connections that say one thing and send another."""
import http.client
import json
import socket

import pytest

from harness import wait

DOMAIN = "sandbox.test"
PLAIN, ODD = 8080, 8081
# Answers by path what http.server does not.
ODD_SERVER = r'''
import socket, sys, threading, time

def answer(client):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return
        data += piece
    path = data.split()[1].decode()
    ok = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    if path == "/many":
        ok += b"Connection: " + b"a," * 15000 + b"b\r\n" + b"x:\r\n" * 7000
    elif path == "/both":
        ok += b"Transfer-Encoding: chunked\r\n"
    elif path == "/slow":
        time.sleep(1)
    elif path == "/switch":
        ok = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n"
    client.sendall(ok + b"Content-Length: 4\r\n\r\nodd\n")
    client.close()

listener = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=64)
while True:
    threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
'''


class Raw:
    """One connection to the control plane."""

    def __init__(self, port, limit_sec=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=limit_sec)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()

    def answer(self, text, method="GET", half_close=False):
        """Sends `text` and answers (status, body, headers) of what comes."""
        self.socket.sendall(text.encode())
        if half_close:
            self.socket.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return response.status, response.read(), response.headers

    def all_answers(self, text):
        """Sends `text` and answers all bytes that come until the server ends the connection."""
        self.socket.sendall(text.encode())
        came = b""
        while piece := self.socket.recv(65536):
            came += piece
        return came


def ask(port, text, **options):
    with Raw(port) as raw:
        return raw.answer(text, **options)


@pytest.fixture(scope="module", name="guest")
def fixture_guest(system, shared):
    """A sandbox with two servers; a function that makes host names of its ports."""
    api = system.api
    api.write_ok(shared, "/tmp/odd.py", ODD_SERVER.encode())
    api.shell(shared, "mkdir -p /srv/web && printf 'this is x' > /srv/web/x")
    script = f"cd /srv/web && exec python3 -u -m http.server {PLAIN} 2>/tmp/requests"
    for command in (["-c", script], ["-c", f"exec python3 /tmp/odd.py {ODD}"]):
        response = api.exec_raw(shared, "sh", command, background=True)
        assert response.status_code == 202, response.text

    def name(port):
        return f"{port}-{shared}.{DOMAIN}"

    for port in (PLAIN, ODD):
        wait.until(lambda at=port: ask(system.proxy_port, request("GET /x", name(at)))[0] == 200, 30, f"port {port}")
    return name


def request(line, host, *fields, body=""):
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *fields, "", body])


@pytest.mark.parametrize("announced", ["Content-Length: {}", "Transfer-Encoding: chunked"])
def test_what_an_upgrade_announces_swallows_no_other_request(system, guest, shared, announced):
    host = guest(PLAIN)
    # What the agent would have to swallow of the second request, for the rest to look like a third.
    swallowed = f"GET /proxy/{shared}/{PLAIN}/x HTTP/1.1\r\nHost: {host}\r\nX-S: "
    hidden = f"GET /proxy/{shared}/{PLAIN}/smuggled HTTP/1.1"
    with Raw(system.proxy_port) as first, Raw(system.proxy_port) as second:
        early = first.answer(request("GET /early", host, "Connection: Upgrade", "Upgrade: foo",
                                     announced.format(len(swallowed))))
        assert early[0] == 404
        assert second.answer(request("GET /x", host, f"X-S: {hidden}"))[:2] == (200, b"this is x")
    assert "smuggled" not in system.api.shell(shared, "cat /tmp/requests")


def test_a_head_request_that_asks_to_upgrade_is_answered(system, guest):
    status, body, headers = ask(system.proxy_port, request("HEAD /x", guest(PLAIN), "Connection: Upgrade", "Upgrade: foo"),
                                method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "9")


CHUNK = "3\r\nabc\r\n0\r\n\r\n"


@pytest.mark.parametrize("status,line,fields", [
    (400, "POST /x", ["Transfer-Encoding: xchunked"]), (400, "POST /x", ["Transfer-Encoding: identity"]),
    (501, "POST /x", ["Transfer-Encoding: gzip, chunked"]),
    (400, "POST /x", ["Transfer-Encoding: chunked", "Content-Length: 3"]),
    (400, "POST /x", ["Content-Length: 3", "Transfer-Encoding: chunked"]),
    (400, "POST /x", ["Content-Length: 3", "Content-Length: 3"]),
    (400, "GET /x", ["Host: other"]), (400, "GET x", []), (400, "OPTIONS *", []), (501, "CONNECT a:80", []),
    (400, "GET /x", ["A : b"]), (431, "GET /x", ["x:"] * 7000),
])
def test_what_can_be_read_in_two_ways_is_refused(system, guest, status, line, fields):
    host = guest(PLAIN)
    for port in (system.proxy_port, system.cp_port):
        with Raw(port) as raw:
            came = raw.all_answers(request(line, host, *fields, body=CHUNK) + request("GET /x", host))
            assert came.startswith(b"HTTP/1.1 %d " % status) and b"\r\nConnection: close\r\n" in came, came
            assert came.count(b"HTTP/1.1 ") == 1, "nothing after it is taken for a request"


def test_the_host_of_an_absolute_target_counts(system, guest):
    text = request(f"GET http://{guest(PLAIN)}/x", "localhost")
    assert ask(system.proxy_port, text)[:2] == (200, b"this is x")
    assert ask(system.cp_port, text)[:2] == (200, b"this is x")
    assert ask(system.cp_port, request("GET http://localhost/health", guest(PLAIN)))[0] == 200


def test_a_request_without_a_host_is_refused(system, guest):
    del guest
    for port in (system.proxy_port, system.cp_port):
        assert ask(port, "GET /health HTTP/1.1\r\n\r\n")[0] == 400


@pytest.mark.parametrize("path", ["/many", "/both", "/switch"])
def test_an_answer_that_cannot_be_passed_on_is_the_guests_failure(system, guest, api, path):
    assert ask(system.proxy_port, request(f"GET {path}", guest(ODD)))[0] in (502, 503)
    assert api.request("GET", "/health").status_code == 200


def test_a_malformed_chunk_is_the_clients_failure(system, guest, shared):
    chunked = ["Transfer-Encoding: chunked", f"X-API-Key: {system.api.key}"]
    assert ask(system.proxy_port, request("POST /slow", guest(ODD), *chunked, body="zz\r\n"))[0] == 400
    form = "Content-Type: multipart/form-data; boundary=b"
    for path, kind in (("", "Content-Type: application/json"), (f"/{shared}/files/write", form)):
        status, body, _ = ask(system.cp_port, request(f"POST /v1/sandboxes{path}", "localhost", *chunked, kind, body="zz\r\n"))
        assert status == 400 and json.loads(body)["error"]["code"] == "invalid_request", body


def test_a_client_that_ended_its_side_gets_its_answer(system, guest, shared):
    assert ask(system.proxy_port, request("GET /slow", guest(ODD)), half_close=True)[:2] == (200, b"odd\n")
    body = json.dumps({"cmd": "sh", "args": ["-c", "sleep 1; echo done"]})
    text = request(f"POST /v1/sandboxes/{shared}/exec", "localhost", f"X-API-Key: {system.api.key}",
                   f"Content-Length: {len(body)}", body=body)
    status, answer, _ = ask(system.cp_port, text, half_close=True)
    assert status == 200 and json.loads(answer)["stdout"] == "done\n"


def test_head_is_answered_as_get_without_the_body(system, api, guest, shared):
    del guest
    for path in ("/health", "/openapi.yaml", "/v1/sandboxes", f"/v1/sandboxes/{shared}"):
        head, get = api.request("HEAD", path), api.request("GET", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        assert int(head.headers["Content-Length"]) > 0
    assert api.request("HEAD", f"/v1/sandboxes/{shared}/exec/stream").status_code == 405
    with Raw(system.cp_port) as raw:
        came = raw.all_answers(request("HEAD /health", "localhost") + request("HEAD /health", "localhost", "Connection: close"))
        assert came.count(b"HTTP/1.1 200 ") == 2 and came.count(b"\r\n\r\n") == 2 and came.endswith(b"\r\n\r\n"), came
