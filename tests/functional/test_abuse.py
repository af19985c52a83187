"""Clients and commands that overdo it: typed errors, bounded memory, neighbours that notice nothing."""
import os
import socket
import struct
import threading
import time

import httpx
import pytest

from harness import wait
from harness.api import Api, error_of, text_of
from harness.guest import Guest

MIB = 1 << 20


@pytest.fixture(name="neighbour")
def fixture_neighbour(api, make):
    """Another sandbox that must keep answering meanwhile, each time within the limit of its command."""
    sandbox_id = make()
    stop, failures = threading.Event(), []

    def ask():
        while not stop.is_set():
            try:
                assert api.exec(sandbox_id, "echo", ["here"], timeout_sec=30)["stdout"] == "here\n"
            except Exception as error:  # pylint: disable=broad-except
                failures.append(error)
                return
            stop.wait(0.3)

    thread = threading.Thread(target=ask)
    thread.start()
    yield sandbox_id
    stop.set()
    thread.join(60)
    assert not failures, failures


def grown(system, before):
    return max(p.rss_bytes() - before[p.name] for p in (system.agent, system.cp))


def sizes(system):
    return {p.name: p.rss_bytes() for p in (system.agent, system.cp)}


def test_a_reader_that_stops_reading(api, system, shared, neighbour):
    del neighbour
    api.shell(shared, "truncate -s 300M /root/zeros")
    before, readers = sizes(system), []
    for _ in range(8):
        reader = socket.create_connection(("127.0.0.1", system.cp_port), timeout=10)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = b'{"path":"/root/zeros"}'
        reader.sendall((f"POST /v1/sandboxes/{shared}/files/stream/read HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key}\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        assert reader.recv(15).startswith(b"HTTP/1.1 200")
        readers.append(reader)
    time.sleep(3)
    assert grown(system, before) < 64 * MIB
    for reader in readers:
        reader.close()
    assert api.shell(shared, "rm /root/zeros; echo gone") == "gone"


def test_a_writer_that_hardly_writes(api, system, shared):
    raw = socket.create_connection(("127.0.0.1", system.cp_port), timeout=30)
    body = (b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\n/tmp/drip\r\n--B\r\n'
            b'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + b"d" * 60 + b"\r\n--B--\r\n")
    raw.sendall((f"POST /v1/sandboxes/{shared}/files/stream/write HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.key}\r\n"
                 f"Content-Type: multipart/form-data; boundary=B\r\nContent-Length: {len(body)}\r\n\r\n").encode())
    for at in range(0, len(body), 4):
        raw.sendall(body[at:at + 4])
        time.sleep(0.02)
    assert raw.recv(20).startswith(b"HTTP/1.1 204")
    assert api.read_ok(shared, "/tmp/drip") == b"d" * 60


def test_a_hundred_thousand_lines_at_once(api, system, shared, neighbour):
    del neighbour
    before = sizes(system)
    stream = api.exec_socket(shared, 120)
    stream.send({"type": "start", "cmd": "seq", "args": ["1", "100000"]})
    text = b"".join(text_of(m) for m in stream.messages() if m["type"] == "stdout")
    assert text == "".join(f"{n}\n" for n in range(1, 100_001)).encode()
    assert grown(system, before) < 64 * MIB


@pytest.mark.timeout(500)
def test_a_thousand_processes(api, shared, neighbour):
    del neighbour
    started = []
    for number in range(1000):
        answer = api.exec_raw(shared, "sleep", ["1000"], background=True, tag=f"t{number}")
        assert answer.status_code in (202, 503), answer.text
        if answer.status_code == 503:
            error_of(answer)
            break
        started.append(answer.json()["tag"])
    assert len(started) == 1000, f"only {len(started)} started"
    listed = api.expect(200, "GET", f"/v1/sandboxes/{shared}/processes").json()["processes"]
    assert len([p for p in listed if p.get("tag", "").startswith("t")]) >= 1000
    api.shell(shared, "pkill -x sleep")
    wait.until(lambda: len(api.expect(200, "GET", f"/v1/sandboxes/{shared}/processes").json()["processes"]) < 5, 60,
               "the end of the thousand")


# Reads the base disk past the page cache, 128 places by one system call (io_submit), again and again.
READER = """
import ctypes, mmap, os, random, struct
call = ctypes.CDLL(None).syscall
disk = os.open("/dev/vda", os.O_RDONLY | os.O_DIRECT)
size = 32768
places = os.lseek(disk, 0, os.SEEK_END) // size
memory = mmap.mmap(-1, 128 * size)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
context = ctypes.c_ulong()
assert call(206, 128, ctypes.byref(context)) == 0
done = 0
for turn in range(25):
    requests = [ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", number, 0, 0, 0, 0, disk, address + number * size,
                                                        size, random.randrange(places) * size, 0, 0, 0), 64)
                for number in range(128)]
    pointers = (ctypes.c_void_p * 128)(*map(ctypes.addressof, requests))
    begun = call(209, context, ctypes.c_long(128), pointers)
    events = ctypes.create_string_buffer(128 * 32)
    done += call(208, context, ctypes.c_long(begun), ctypes.c_long(begun), events, None)
print(done)
"""


def test_a_guest_with_many_disk_requests_at_a_time_lives(api, system, make):
    """QEMU meets each request with a thread, beside one for each vCPU."""
    sandbox_id = make(vcpus=2)
    pid = system.vm_pid(sandbox_id)
    ended = threading.Event()

    def forget():
        """The host's disk is asked, not its page cache, so that requests wait beside each other."""
        with open(f"{system.images}/minimal/rootfs.ext4", "rb") as image:
            while not ended.wait(0.0005):
                os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    forgetter = threading.Thread(target=forget)
    forgetter.start()
    try:
        answer = Api(system.cp_url, api.key, 300).exec_raw(sandbox_id, "python3", ["-c", READER], timeout_sec=240)
    finally:
        ended.set()
        forgetter.join()
    assert answer.status_code == 200 and answer.json()["stdout"] == "3200\n", answer.text
    assert system.vm_pid(sandbox_id) == pid


def test_arguments_and_environment_that_are_too_long(api, system, shared):
    for fields in ({"args": ["x" * 140_000]}, {"args": ["x"] * 1025}, {"envs": {"A": "x" * 140_000}},
                   {"envs": {f"A{n}": "" for n in range(300)}}):
        answer = api.exec_raw(shared, "true", **{"args": [], **fields})
        assert answer.status_code == 400, (list(fields), answer.text[:200])
        error_of(answer)
    # Through the guest agent's own API the kernel has the last word: its E2BIG is an error, not a hang.
    guest = Guest(system, shared)
    ends = list(guest.stream("process.Process/Start", process={"cmd": "true", "args": ["x" * 200_000]}))
    assert "error" in ends[-1]["end"] or any(m.get("event", {}).get("end", {}).get("exitCode") for m in ends), ends
    guest.close()


@pytest.mark.parametrize("fields", [{"cmd": "a\0b"}, {"cmd": "true", "args": ["a\0b"]}, {"cmd": "true", "cwd": "/\0"},
                                    {"cmd": "true", "envs": {"A": "\0"}}, {"cmd": "true", "envs": {"A=B": "x"}},
                                    {"cmd": "true", "envs": {"": "x"}}])
def test_nul_bytes_and_odd_names(api, shared, fields):
    answer = api.request("POST", f"/v1/sandboxes/{shared}/exec", json=fields)
    assert answer.status_code == 400, answer.text
    error_of(answer)


def test_an_unknown_user(api, system, shared):
    terminal = api.pty_socket(shared)
    terminal.send({"type": "start", "user": "nobody-at-all"})
    frame = list(terminal.messages())[-1]
    assert frame["type"] == "error" and "nobody-at-all" in frame["data"] and frame["fatal"] is True
    guest = Guest(system, shared)
    answer = guest.request("POST", "/process.Process/List", headers={"Content-Type": "application/json"}, json={})
    assert answer.status_code == 200
    ends = list(guest.stream("process.Process/Start", headers={"Authorization": "Basic eDo="}, process={"cmd": "id"}))
    assert ends[-1]["end"]["error"]["code"] == "unauthenticated"
    assert "invalid username: 'x'" in ends[-1]["end"]["error"]["message"]
    guest.close()


def test_frames_that_lie_about_their_length(system, shared):
    guest = Guest(system, shared)
    for framed in (struct.pack(">BI", 0, 0xFFFFFFFF) + b"{}", struct.pack(">BI", 0x80, 2) + b"{}", b"\0\0\0",
                   struct.pack(">BI", 0, 5) + b"{}", struct.pack(">BI", 1, 2) + b"{}"):
        answer = guest.request("POST", "/process.Process/Start", content=framed,
                               headers={"Content-Type": "application/connect+json"})
        assert answer.status_code == 200 and b'"error"' in answer.content, answer.content
    assert guest.request("GET", "/health").status_code == 204
    guest.close()


def test_a_full_disk_is_said_and_survived(api, shared, neighbour):
    del neighbour
    # All but a little at once, the rest byte by byte until the disk says no.
    api.shell(shared, "fallocate -l $(($(df --output=avail -B1 /root | tail -1) - 100000000)) /root/spare &&"
                      " ! head -c 200M /dev/zero > /root/fill 2>/dev/null", timeout_sec=50)
    answer = api.write(shared, "/root/more", b"x" * (2 * MIB))
    assert answer.status_code == 507 and error_of(answer)[0] == "insufficient_storage"
    folder = api.request("POST", f"/v1/sandboxes/{shared}/files/mkdir", json={"path": "/root/dir/" + "d/" * 200})
    assert folder.status_code in (200, 507), folder.text
    api.shell(shared, "rm -rf /root/fill /root/spare /root/more /root/dir")
    api.write_ok(shared, "/root/more", b"x")


def test_a_connection_that_says_nothing_ends(system):
    """And many of them do not keep others out."""
    silent = [socket.create_connection(("127.0.0.1", system.cp_port), timeout=20) for _ in range(200)]
    assert httpx.get(f"{system.cp_url}/health", trust_env=False).status_code == 200
    silent[0].sendall(b"GET /health HT")
    silent[0].settimeout(20)
    answer = silent[0].recv(100)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 408") or answer.startswith(b"HTTP/1.1 400"), answer
    for each in silent:
        each.close()
