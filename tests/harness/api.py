"""The REST API as a client sees it."""
import base64
import contextlib
import json
import socket
import time

import httpx
import websocket


class ApiFailure(AssertionError):
    def __init__(self, response, wanted):
        self.response = response
        super().__init__(f"{response.request.method} {response.request.url.path} answered {response.status_code}, "
                         f"not {wanted}: {response.text[:600]}")


def error_of(response):
    """The (code, message) of an error answer; fails when the envelope is not {"error":{"code","message"}}."""
    body = response.json()
    assert set(body) == {"error"}, body
    assert isinstance(body["error"]["code"], str) and body["error"]["code"], body
    assert isinstance(body["error"]["message"], str) and body["error"]["message"], body
    return body["error"]["code"], body["error"]["message"]


class JsonSocket:
    """exec/stream and pty: JSON text frames both ways."""

    def __init__(self, url, key, limit_sec=30):
        self.socket = websocket.create_connection(url, timeout=limit_sec, header=[f"X-API-Key: {key}"])

    def send(self, message):
        self.socket.send(json.dumps(message))

    def receive(self):
        """The next message; None when the server closed."""
        try:
            text = self.socket.recv()
        except websocket.WebSocketConnectionClosedException:
            return None
        return json.loads(text) if text else None

    def messages(self):
        while (message := self.receive()) is not None:
            yield message

    def close(self):
        self.socket.close()

    def drop(self):
        """Cuts the connection without a word, as a client that lost its network."""
        with contextlib.suppress(OSError):
            self.socket.sock.shutdown(socket.SHUT_RDWR)
        self.socket.sock.close()


def text_of(message):
    if message.get("encoding") == "base64":
        return base64.b64decode(message["data"])
    return message["data"].encode()


class Api:
    def __init__(self, base_url, key, limit_sec=60):
        self.base_url = base_url
        self.key = key
        self.http = httpx.Client(base_url=base_url, headers={"X-API-Key": key} if key else {},
                                 timeout=httpx.Timeout(limit_sec), trust_env=False)

    def close(self):
        self.http.close()

    def request(self, method, path, **options):
        return self.http.request(method, path, **options)

    def expect(self, status, method, path, **options):
        response = self.request(method, path, **options)
        if response.status_code != status:
            raise ApiFailure(response, status)
        return response

    # ---- sandboxes
    def create(self, **fields):
        return self.expect(201, "POST", "/v1/sandboxes", json=fields).json()

    def get(self, sandbox_id):
        return self.expect(200, "GET", f"/v1/sandboxes/{sandbox_id}").json()

    def list(self):
        return self.expect(200, "GET", "/v1/sandboxes").json()

    def status(self, sandbox_id):
        return self.get(sandbox_id)["status"]

    def pause(self, sandbox_id):
        return self.expect(200, "POST", f"/v1/sandboxes/{sandbox_id}/pause").json()

    def resume(self, sandbox_id):
        return self.expect(200, "POST", f"/v1/sandboxes/{sandbox_id}/resume").json()

    def ping(self, sandbox_id):
        return self.request("POST", f"/v1/sandboxes/{sandbox_id}/ping")

    def destroy(self, sandbox_id):
        return self.expect(204, "DELETE", f"/v1/sandboxes/{sandbox_id}")

    def exec_raw(self, sandbox_id, cmd, args=(), **fields):
        body = {"cmd": cmd, "args": list(args), **fields}
        return self.request("POST", f"/v1/sandboxes/{sandbox_id}/exec", json=body)

    def exec(self, sandbox_id, cmd, args=(), **fields):
        response = self.exec_raw(sandbox_id, cmd, args, **fields)
        if response.status_code != 200:
            raise ApiFailure(response, 200)
        answer = response.json()
        if answer["encoding"] == "base64":
            answer["stdout_bytes"] = base64.b64decode(answer["stdout"])
            answer["stderr_bytes"] = base64.b64decode(answer["stderr"])
        else:
            answer["stdout_bytes"] = answer["stdout"].encode()
            answer["stderr_bytes"] = answer["stderr"].encode()
        return answer

    def shell(self, sandbox_id, script, **fields):
        """Runs a bash script that must succeed; answers its stdout without the last newline."""
        answer = self.exec(sandbox_id, "bash", ["-c", script], **fields)
        assert answer["exit_code"] == 0, f"exit {answer['exit_code']}: {script!r}\n{answer['stdout']}{answer['stderr']}"
        return answer["stdout"].rstrip("\n")

    def exec_socket(self, sandbox_id, limit_sec=30):
        url = self.base_url.replace("http", "ws", 1) + f"/v1/sandboxes/{sandbox_id}/exec/stream"
        return JsonSocket(url, self.key, limit_sec)

    def pty_socket(self, sandbox_id, limit_sec=30):
        url = self.base_url.replace("http", "ws", 1) + f"/v1/sandboxes/{sandbox_id}/pty"
        return JsonSocket(url, self.key, limit_sec)

    def process_socket(self, sandbox_id, selector, limit_sec=30):
        url = self.base_url.replace("http", "ws", 1) + f"/v1/sandboxes/{sandbox_id}/processes/{selector}/stream"
        return JsonSocket(url, self.key, limit_sec)

    # ---- files
    def write(self, sandbox_id, path, content, stream=False):
        route = "files/stream/write" if stream else "files/write"
        return self.request("POST", f"/v1/sandboxes/{sandbox_id}/{route}", data={"path": path},
                            files={"file": ("content", content, "application/octet-stream")})

    def write_ok(self, sandbox_id, path, content, stream=False):
        response = self.write(sandbox_id, path, content, stream)
        if response.status_code != 204:
            raise ApiFailure(response, 204)

    def read(self, sandbox_id, path, stream=False):
        route = "files/stream/read" if stream else "files/read"
        return self.request("POST", f"/v1/sandboxes/{sandbox_id}/{route}", json={"path": path})

    def read_ok(self, sandbox_id, path, stream=False):
        response = self.read(sandbox_id, path, stream)
        if response.status_code != 200:
            raise ApiFailure(response, 200)
        return response.content

    # ---- a client that goes away
    def send_and_hang_up(self, method, path, body=b"", content_type="application/json", after_sec=0.05,
                         announced=None):
        """Sends a request, waits, and closes the connection without reading the answer. `announced` sets another
        Content-Length than the body's."""
        url = httpx.URL(self.base_url)
        with socket.create_connection((url.host, url.port), timeout=10) as raw:
            head = (f"{method} {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nX-API-Key: {self.key}\r\n"
                    f"Content-Type: {content_type}\r\n"
                    f"Content-Length: {len(body) if announced is None else announced}\r\n\r\n")
            raw.sendall(head.encode() + body)
            time.sleep(after_sec)
