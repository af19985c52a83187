"""Bad input answers typed errors that name the field and the range, and changes nothing."""
import json

import pytest

from harness.api import error_of

UNKNOWN = "sb-aaaaaaaaaaaaaaaaaaaaaaaaaa"


@pytest.fixture
def nothing_new(api, system):
    before = (len(api.list()), set(system.rpc.list()[0]))
    yield
    assert (len(api.list()), set(system.rpc.list()[0])) == before, "a refused request left something"


RANGES = {"vcpus": (1, 32), "memory_mb": (128, 65536), "timeout_sec": (0, 31536000)}


@pytest.mark.parametrize("field,value", [
    ("vcpus", 0), ("vcpus", -1), ("vcpus", 33), ("vcpus", 2**31), ("vcpus", 2**63), ("vcpus", 10**30),
    ("memory_mb", 0), ("memory_mb", 127), ("memory_mb", 65537), ("memory_mb", -512), ("memory_mb", 2**32 + 512),
    ("timeout_sec", -1), ("timeout_sec", 31536001), ("timeout_sec", 2**32),
])
def test_out_of_range_names_field_and_range(api, nothing_new, field, value):
    response = api.request("POST", "/v1/sandboxes", json={field: value})
    assert response.status_code == 400, response.text
    code, message = error_of(response)
    assert code == "invalid_request"
    low, high = RANGES[field]
    assert field in message and str(low) in message and str(high) in message, message


@pytest.mark.parametrize("field,value", [
    ("vcpus", "1"), ("vcpus", 1.5), ("vcpus", True), ("vcpus", []), ("memory_mb", "512"), ("memory_mb", {}),
    ("timeout_sec", "10"), ("timeout_sec", 0.5), ("template", 7), ("template", ["minimal"]), ("template", False),
])
def test_wrong_types_name_the_field(api, nothing_new, field, value):
    response = api.request("POST", "/v1/sandboxes", json={field: value})
    assert response.status_code == 400, response.text
    code, message = error_of(response)
    assert code == "invalid_request" and field in message, message


@pytest.mark.parametrize("name", ["../etc", "a/b", "-x", ".hidden", "a" * 65, "white space", "nul\0", "ümlaut"])
def test_bad_template_names(api, nothing_new, name):
    response = api.request("POST", "/v1/sandboxes", json={"template": name})
    assert response.status_code == 400, response.text
    assert "template" in error_of(response)[1]


def test_an_unknown_template(api, nothing_new):
    response = api.request("POST", "/v1/sandboxes", json={"template": "no-such-template"})
    assert response.status_code == 404, response.text
    code, message = error_of(response)
    assert code == "not_found" and "no-such-template" in message


@pytest.mark.parametrize("body", [b"{", b"[]", b"null x", b"\xff\xfe", b'"text"', b"[" * 5000, b'{"vcpus":1,}'])
def test_bodies_that_are_no_json_object(api, nothing_new, body):
    response = api.request("POST", "/v1/sandboxes", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400, response.text
    assert error_of(response)[0] == "invalid_request"


def test_a_huge_json_body_is_refused(api, nothing_new):
    body = json.dumps({"template": "x" * (4 << 20)}).encode()
    response = api.request("POST", "/v1/sandboxes", content=body)
    assert response.status_code in (400, 413), response.text
    error_of(response)


@pytest.mark.parametrize("method,path,body", [
    ("GET", "", None), ("DELETE", "", None), ("POST", "/pause", None), ("POST", "/resume", None), ("POST", "/ping", None),
    ("POST", "/exec", {"cmd": "true"}), ("POST", "/files/read", {"path": "/etc/hostname"}),
    ("POST", "/files/stream/read", {"path": "/etc/hostname"}),
])
@pytest.mark.parametrize("sandbox_id", [UNKNOWN, "x", "..%2f..", "sb-" + "a" * 200, "%00"])
def test_unknown_sandboxes(api, method, path, body, sandbox_id):
    response = api.request(method, f"/v1/sandboxes/{sandbox_id}{path}", json=body)
    assert response.status_code in (400, 404), response.text
    error_of(response)
    if sandbox_id == UNKNOWN:
        assert response.status_code == 404


@pytest.mark.parametrize("body", [
    {}, {"cmd": ""}, {"cmd": 1}, {"cmd": "true", "args": "x"}, {"cmd": "true", "args": [1]},
    {"cmd": "true", "timeout_sec": -1}, {"cmd": "true", "timeout_sec": "1"}, {"cmd": "true", "timeout_sec": 10**9},
    {"cmd": "true", "args": ["x"] * 2000}, {"cmd": "x" * 200_000},
])
def test_bad_exec_requests(api, shared, body):
    response = api.request("POST", f"/v1/sandboxes/{shared}/exec", json=body)
    assert response.status_code == 400, response.text
    assert error_of(response)[0] == "invalid_request"


@pytest.mark.parametrize("first", [
    "not json", "[]", '{"type":"begin"}', '{"type":"start"}', '{"type":"start","cmd":7}', '{"cmd":"true"}',
])
def test_bad_first_frames_of_a_stream(api, shared, first):
    socket = api.exec_socket(shared)
    socket.socket.send(first)
    message = socket.receive()
    assert message is not None and message["type"] == "error", message
    socket.close()
    assert api.exec(shared, "true")["exit_code"] == 0


@pytest.mark.parametrize("path", ["", "/dev/shm/nul\0", "x" * 5000])
def test_bad_file_paths(api, shared, path):
    assert api.read(shared, path).status_code == 400
    assert api.write(shared, path, b"x").status_code == 400


@pytest.mark.parametrize("path", ["/root/missing", "/no/such/folder/file"])
def test_missing_files(api, shared, path):
    for stream in (False, True):
        response = api.read(shared, path, stream)
        assert response.status_code == 404, response.text
        error_of(response)


def test_reading_a_folder_is_refused(api, shared):
    response = api.read(shared, "/etc")
    assert response.status_code in (400, 404, 409), response.text
    error_of(response)


@pytest.mark.parametrize("stream", [False, True])
def test_broken_uploads(api, shared, stream):
    route = f"/v1/sandboxes/{shared}/files/{'stream/' if stream else ''}write"
    for content, content_type in (
            (b"x", "text/plain"), (b"x", "multipart/form-data"), (b"garbage", "multipart/form-data; boundary=b"),
            (b"--b\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n/tmp/cut\r\n--b\r\n"
             b"Content-Disposition: form-data; name=\"file\"\r\n\r\nabc", "multipart/form-data; boundary=b"),
            (b"--b\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc\r\n--b--\r\n",
             "multipart/form-data; boundary=b")):
        response = api.request("POST", route, content=content, headers={"Content-Type": content_type})
        assert response.status_code == 400, (content_type, response.status_code, response.text)
        error_of(response)


def test_wrong_methods_and_routes(api):
    assert api.request("PUT", "/v1/sandboxes").status_code == 405
    assert api.request("GET", f"/v1/sandboxes/{UNKNOWN}/exec").status_code == 405
    assert api.request("GET", "/v2/sandboxes").status_code == 404
    assert api.request("GET", "/").status_code == 404


def test_exec_stream_without_an_upgrade(api, shared):
    response = api.request("GET", f"/v1/sandboxes/{shared}/exec/stream")
    assert 400 <= response.status_code < 500, response.text
    error_of(response)
