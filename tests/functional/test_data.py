"""Bytes through every hop: exact, bounded, and without holding them in memory."""
import hashlib
import os
import time

import pytest

from harness import wait
from harness.api import error_of, text_of
from harness.sampler import Sampler

MIB = 1 << 20
LIMIT = 100 * MIB
# What a program may grow by while much more than that passes through it.
GROWTH_LIMIT = 64 * MIB


class MemoryWatch(Sampler):
    """The highest resident size of both programs above their size at the start."""
    PERIOD_SEC = 0.05

    def __init__(self, system):
        super().__init__()
        self.programs = [system.cp, system.agent]
        self.base = {program.name: program.rss_bytes() for program in self.programs}
        self.peak = dict(self.base)

    def sample(self):
        for program in self.programs:
            self.peak[program.name] = max(self.peak[program.name], program.rss_bytes())

    def assert_bounded(self):
        for name, peak in self.peak.items():
            growth = peak - self.base[name]
            assert growth < GROWTH_LIMIT, f"{name} grew by {growth / MIB:.0f} MiB"


class Pattern:
    """A readable of `size` pseudo-random bytes that is not held in memory."""

    def __init__(self, size):
        self.size = self.left = size
        self.block = os.urandom(MIB)

    def read(self, size=-1):
        begin = (self.size - self.left) % MIB
        want = min(self.left, MIB if size < 0 else size, MIB - begin)
        self.left -= want
        return self.block[begin:begin + want]

    def equals(self, pieces):
        """Whether `pieces`, none over 1 MiB, are all of it."""
        at, twice = 0, self.block * 2
        for piece in pieces:
            begin = at % MIB
            if piece != twice[begin:begin + len(piece)]:
                return False
            at += len(piece)
        return at == self.size


def multipart(path, readable, chunked_file_name="content"):
    """A streamed multipart body, path first."""
    boundary = "wrenn-test-boundary"

    def pieces():
        yield (f"--{boundary}\r\nContent-Disposition: form-data; name=\"path\"\r\n\r\n{path}\r\n--{boundary}\r\n"
               f"Content-Disposition: form-data; name=\"file\"; filename=\"{chunked_file_name}\"\r\n\r\n").encode()
        while piece := readable.read(256 * 1024):
            yield piece
        yield f"\r\n--{boundary}--\r\n".encode()

    return pieces(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 17, b"\r\n--boundary\r\n" * 1000],
                         ids=["empty", "one", "all-bytes", "delimiters"])
def test_files_come_back_as_they_went(api, shared, content, stream):
    path = f"/root/files/{len(content)}-{stream}"
    api.write_ok(shared, path, content, stream)
    assert api.read_ok(shared, path, stream) == content
    assert api.shell(shared, f"sha256sum < {path}").split()[0] == hashlib.sha256(content).hexdigest()


def test_a_write_replaces_and_makes_folders(api, shared):
    api.write_ok(shared, "/root/new/deep/file", b"a long first version")
    api.write_ok(shared, "/root/new/deep/file", b"short")
    assert api.read_ok(shared, "/root/new/deep/file") == b"short"


def test_the_buffered_route_takes_100_mb(api, system, shared):
    """At the limit it works; one byte more is 413 and leaves no file."""
    with MemoryWatch(system) as memory:
        content, headers = multipart("/root/over", Pattern(LIMIT + 1))
        response = api.request("POST", f"/v1/sandboxes/{shared}/files/write", content=content, headers=headers)
    assert response.status_code == 413, response.text
    assert error_of(response)[0] == "too_large"
    assert api.exec(shared, "test", ["-e", "/root/over"])["exit_code"] == 1, "a refused upload left a file"
    memory.assert_bounded()


def test_one_byte_over_with_a_known_length_is_refused_early(api, shared):
    response = api.write(shared, "/root/over", bytes(LIMIT + 1))
    assert response.status_code == 413, response.text
    assert error_of(response)[0] == "too_large"


def test_one_path_a_request(api, shared):
    parts = [("path", (None, "/tmp/first")), ("path", (None, "/second")), ("file", ("content", b"x"))]
    response = api.request("POST", f"/v1/sandboxes/{shared}/files/write", files=parts)
    assert response.status_code == 400 and error_of(response) == ("invalid_request", "one path a request")
    assert api.exec(shared, "ls", ["/tmp/first", "/tmp/first/second"])["exit_code"] != 0


def test_the_stream_route_takes_more_and_holds_nothing(api, system, shared):
    pattern = Pattern(LIMIT + 1)
    with MemoryWatch(system) as memory:
        content, headers = multipart("/root/big", pattern)
        response = api.request("POST", f"/v1/sandboxes/{shared}/files/stream/write", content=content, headers=headers)
        assert response.status_code == 204, response.text
        with api.http.stream("POST", f"/v1/sandboxes/{shared}/files/stream/read", json={"path": "/root/big"}) as answer:
            assert answer.status_code == 200
            assert pattern.equals(answer.iter_bytes())
    memory.assert_bounded()
    api.shell(shared, "rm /root/big")


def test_binary_output_is_base64(api, shared):
    answer = api.exec(shared, "bash", ["-c", r"printf '\xff\xfe\x00\x01'; echo text >&2"])
    assert answer["encoding"] == "base64"
    assert answer["stdout_bytes"] == b"\xff\xfe\x00\x01" and answer["stderr_bytes"] == b"text\n"


def test_binary_output_of_a_stream_is_exact(api, shared):
    socket = api.exec_socket(shared)
    socket.send({"type": "start", "cmd": "bash", "args": ["-c", r"printf '\xff\x00'; printf 'gr\xc3\xbc\xc3\x9fe \xe2\x82\xac'"]})
    out = b"".join(text_of(m) for m in socket.messages() if m["type"] == "stdout")
    assert out == b"\xff\x00" + "grüße €".encode()


def test_characters_cut_between_chunks_stay_whole(api, shared):
    socket = api.exec_socket(shared)
    socket.send({"type": "start", "cmd": "bash", "args": ["-c", r"printf '\xe2\x82'; sleep 0.3; printf '\xac\n'"]})
    messages = [m for m in socket.messages() if m["type"] == "stdout"]
    assert b"".join(text_of(m) for m in messages) == "€\n".encode()
    assert all(m.get("encoding") != "base64" for m in messages), messages


def test_yes_as_a_command(api, system, shared):
    """Endless output is a typed error; nothing grows and no process is left."""
    with MemoryWatch(system) as memory:
        response = api.exec_raw(shared, "yes", timeout_sec=30)
    assert response.status_code == 413, f"{response.status_code} {response.text[:300]}"
    assert error_of(response)[0] == "output_limit"
    memory.assert_bounded()
    wait.until(lambda: api.exec(shared, "pgrep", ["-x", "yes"])["exit_code"] == 1, 10, "yes to be gone")


def test_yes_on_a_stream_that_nobody_reads(api, system, shared):
    socket = api.exec_socket(shared)
    with MemoryWatch(system) as memory:
        socket.send({"type": "start", "cmd": "yes"})
        time.sleep(3)
        assert api.exec(shared, "true")["exit_code"] == 0, "one slow reader stops the others"
    memory.assert_bounded()
    socket.drop()
    wait.until(lambda: api.exec(shared, "pgrep", ["-x", "yes"])["exit_code"] == 1, 15, "yes to be gone")


def test_output_below_the_limit_is_whole(api, shared):
    answer = api.exec(shared, "bash", ["-c", "head -c 4000000 /dev/zero | tr '\\0' a"])
    assert answer["exit_code"] == 0 and answer["stdout"] == "a" * 4_000_000


def test_a_full_guest_disk_is_the_clients_error(api, make):
    """The guest's disk, not the host's: 507, and the sandbox goes on."""
    sandbox_id = make()
    api.shell(sandbox_id, "fallocate -l $(( $(df --output=avail -B1 / | tail -1) - 4194304 )) /ballast")
    response = api.write(sandbox_id, "/root/too-much", bytes(16 * MIB))
    assert response.status_code == 507, response.text
    error_of(response)
    api.shell(sandbox_id, "rm /ballast")
    api.write_ok(sandbox_id, "/root/fits", b"x")
