"""envd inside a real guest: what a host or an E2B client asks of it directly."""
import base64
import contextlib
import gzip
import hashlib
import threading
import time

import httpx
import pytest

from harness import wait
from harness.guest import Guest


@pytest.fixture(name="guest")
def fixture_guest(system, shared):
    guest = Guest(system, shared)
    yield guest
    guest.close()


def counter(api, sandbox_id):
    """The counting program empties the file before each number."""
    return int(api.shell(sandbox_id, "until n=$(cat /dev/shm/counter); [ -n \"$n\" ]; do :; done; echo $n"))


def test_it_tells_its_version_and_what_it_uses(guest):
    assert guest.request("GET", "/health").status_code == 204
    before = time.time()
    metrics = guest.request("GET", "/metrics").json()
    assert metrics["cpu_count"] == 1 and 0 <= metrics["cpu_used_pct"] <= 100
    assert metrics["mem_total"] > 400 << 20 and metrics["mem_total_mib"] == metrics["mem_total"] >> 20
    assert 0 < metrics["mem_used"] < metrics["mem_total"] and metrics["disk_total"] > 4 << 30
    assert before - 2 <= metrics["ts"] <= time.time() + 2
    assert guest.request("GET", "/envs").json()["WRENN_SANDBOX"] == "true"


def test_everything_but_health_and_init_needs_the_token(guest):
    for method, path in (("GET", "/metrics"), ("GET", "/envs"), ("GET", "/files?path=/etc/passwd"),
                         ("POST", "/files?path=/tmp/x"), ("POST", "/files/compose"), ("POST", "/freeze"),
                         ("POST", "/quiesce"), ("POST", "/process.Process/List"),
                         ("POST", "/filesystem.Filesystem/Stat"), ("POST", "/init")):
        for headers in ({}, {"X-Access-Token": guest.token[:-1] + "x"}, {"X-Access-Token": ""}):
            response = httpx.request(method, guest.url + path, headers=headers, json={}, trust_env=False)
            assert response.status_code == 401, (path, headers, response.text)
    assert httpx.get(guest.url + "/health", trust_env=False).status_code == 204


def test_a_signed_url_opens_one_file(guest):
    guest.request("POST", "/files", params={"path": "/tmp/signed file"}, content=b"secret",
                  headers={"Content-Type": "application/octet-stream"})

    def signed(path, operation, expiry=""):
        text = f"{path}:{operation}::{guest.token}" + (f":{expiry}" if expiry else "")
        return "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")

    def get(path, signature, **query):
        return httpx.get(guest.url + "/files", params={"path": path, "signature": signature, **query}, trust_env=False)

    later = int(time.time()) + 60
    path = "/tmp/signed file"
    assert get(path, signed(path, "read")).content == b"secret"
    assert get(path, signed(path, "read", later), signature_expiration=later).content == b"secret"
    for answer in (get("/etc/passwd", signed(path, "read")), get(path, signed(path, "write")),
                   get(path, signed(path, "read", later)), get(path, signed(path, "read", 99), signature_expiration=99),
                   get(path, signed(path, "read"), username="root")):
        assert answer.status_code == 401, answer.text


def test_files_keep_metadata_on_the_sandboxs_disk(guest):
    answer = guest.request("POST", "/files", files=[("file", ("/home/user/meta/one", b"1")), ("file", ("two", b"2"))],
                           params={"username": "user"}, headers={"X-Metadata-Kind": "test"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {"name": "one", "path": "/home/user/meta/one", "type": "file", "metadata": {"kind": "test"}},
        {"name": "two", "path": "/home/user/two", "type": "file", "metadata": {"kind": "test"}}]
    entry = guest.call("filesystem.Filesystem/Stat", path="/home/user/meta/one")["entry"]
    assert entry["metadata"] == {"kind": "test"} and entry["owner"] == "user"


def test_large_files_packed_and_in_parts(guest):
    content = bytes(range(256)) * 8192
    packed = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    answer = guest.request("POST", "/files", params={"path": "/root/packed"}, content=gzip.compress(content), headers=packed)
    assert answer.status_code == 200, answer.text
    down = guest.request("GET", "/files", params={"path": "/root/packed"}, headers={"Accept-Encoding": "gzip"})
    assert down.headers["Content-Encoding"] == "gzip" and down.content == content
    part = guest.request("GET", "/files", params={"path": "/root/packed"}, headers={"Range": "bytes=1000000-1000009"})
    assert part.status_code == 206 and part.content == content[1000000:1000010]


def test_a_freeze_stops_processes_and_a_thaw_lets_them_go_on(api, system, make):
    sandbox_id = make()
    guest = Guest(system, sandbox_id)
    answer = api.exec_raw(sandbox_id, "bash", ["-c", "i=0; while :; do i=$((i+1)); echo $i > /dev/shm/counter; done"],
                          background=True)
    assert answer.status_code == 202
    wait.until(lambda: api.read(sandbox_id, "/dev/shm/counter").content.strip(), 5, "the counter")

    def read():
        return guest.request("GET", "/files", params={"path": "/dev/shm/counter"}).content

    frozen = guest.request("POST", "/freeze", params={"maxWaitMs": 3000})
    assert frozen.status_code == 200 and frozen.json()["frozen"] == 2 and frozen.json()["unconfirmed"] == 0
    first = read()
    time.sleep(0.5)
    assert read() == first
    refused = api.exec_raw(sandbox_id, "true")
    assert refused.status_code == 503, "a process that started now would stop before its program runs"
    assert guest.request("POST", "/unfreeze").status_code == 204
    wait.until(lambda: read() != first, 5, "the counter to go on")
    guest.close()
    # A pause freezes too, and a resume thaws.
    api.pause(sandbox_id)
    api.resume(sandbox_id)
    before = counter(api, sandbox_id)
    wait.until(lambda: counter(api, sandbox_id) > before, 5, "the counter to go on after the resume")


def test_every_process_has_a_group_a_weight_and_a_limit(api, shared):
    group = api.shell(shared, "cat /proc/self/cgroup")
    assert group.startswith("0::/user/"), group
    assert api.shell(shared, "cat /sys/fs/cgroup/user/cpu.weight /sys/fs/cgroup/pty/cpu.weight") == "50\n200"
    limit, total = map(int, api.shell(
        shared, "cat /sys/fs/cgroup/user/memory.max; awk '/MemTotal/{print $2*1024}' /proc/meminfo").split())
    assert total // 2 < limit < total
    assert api.shell(shared, "cat /proc/self/oom_score_adj") == "100"


def test_a_hungry_process_ends_and_the_guest_stays(api, shared):
    answer = api.exec(shared, "python3", ["-c", "a=[]\nwhile True: a.append(bytearray(8<<20))"], timeout_sec=25)
    assert answer["exit_code"] != 0
    assert api.shell(shared, "echo alive") == "alive"


def test_a_folder_is_watched(guest, api, shared):
    api.shell(shared, "mkdir -p /tmp/w/sub")
    events = []

    def follow():
        with contextlib.suppress(httpx.HTTPError):  # the sandbox's end
            for message in guest.stream("filesystem.Filesystem/WatchDir", path="/tmp/w", recursive=True,
                                        includeEntry=True):
                events.append(message)

    threading.Thread(target=follow, daemon=True).start()
    wait.until(lambda: events, 5, "the watch to begin")
    assert "start" in events[0]
    api.write_ok(shared, "/tmp/w/sub/file", b"12345")
    wait.until(lambda: len(events) >= 4, 5, "the upload's events")
    seen = [(e["filesystem"]["name"], e["filesystem"]["type"]) for e in events[1:4]]
    assert seen == [("sub/file", f"EVENT_TYPE_{kind}") for kind in ("CREATE", "CHMOD", "WRITE")]
    assert events[3]["filesystem"]["entry"]["size"] == "5"
    api.shell(shared, "rm -r /tmp/w/sub")
    wait.until(lambda: ("sub", "EVENT_TYPE_REMOVE") in
               [(e.get("filesystem", {}).get("name"), e.get("filesystem", {}).get("type")) for e in events], 5, "removal")


def test_watchers_that_are_asked(guest, api, shared):
    api.shell(shared, "mkdir -p /tmp/p")
    watcher = guest.call("filesystem.Filesystem/CreateWatcher", path="/tmp/p")["watcherId"]
    assert guest.call("filesystem.Filesystem/GetWatcherEvents", watcherId=watcher) == {}
    api.shell(shared, "echo x > /tmp/p/a; mv /tmp/p/a /tmp/p/b")
    kinds = []

    def drained():
        for event in guest.call("filesystem.Filesystem/GetWatcherEvents", watcherId=watcher).get("events", []):
            kinds.append((event["name"], event["type"].removeprefix("EVENT_TYPE_")))
        return len(kinds) >= 4

    wait.until(drained, 5, "the events")
    assert kinds == [("a", "CREATE"), ("a", "WRITE"), ("a", "RENAME"), ("b", "CREATE")]
    guest.call("filesystem.Filesystem/RemoveWatcher", watcherId=watcher)
    gone = guest.request("POST", "/filesystem.Filesystem/GetWatcherEvents", json={"watcherId": watcher})
    assert gone.status_code == 404 and gone.json()["code"] == "not_found"
    refused = guest.request("POST", "/filesystem.Filesystem/CreateWatcher", json={"path": "/etc/passwd"})
    assert refused.json()["code"] == "invalid_argument"


def test_a_silent_process_keeps_its_stream_alive(guest):
    stream = guest.stream("process.Process/Start", headers={"Keepalive-Ping-Interval": "1"},
                          process={"cmd": "sleep", "args": ["2.5"]})
    kinds = [next(iter(m.get("event", m))) for m in stream]
    assert kinds[0] == "start" and kinds.count("keepalive") == 2 and kinds[-2:] == ["end", "end"]
