"""Processes that go on without the request that started them: background exec, list, signals, streams."""
import re
import time

import pytest

from harness import wait
from harness.api import error_of, text_of


def background(api, sandbox_id, script, **fields):
    response = api.exec_raw(sandbox_id, "bash", ["-c", script], background=True, **fields)
    assert response.status_code == 202, response.text
    return response.json()


def processes(api, sandbox_id):
    return api.expect(200, "GET", f"/v1/sandboxes/{sandbox_id}/processes").json()["processes"]


def kill(api, sandbox_id, selector, **query):
    return api.request("DELETE", f"/v1/sandboxes/{sandbox_id}/processes/{selector}", params=query)


def test_a_background_process_outlives_its_request(api, shared):
    started = background(api, shared, "sleep 60")
    assert started["sandbox_id"] == shared and started["cmd"] == "bash" and started["pid"] > 0
    assert re.fullmatch(r"proc-\w{8}", started["tag"])
    entry = next(p for p in processes(api, shared) if p["pid"] == started["pid"])
    assert entry == {"pid": started["pid"], "tag": started["tag"], "cmd": "bash", "args": ["-c", "sleep 60"]}
    assert kill(api, shared, started["pid"]).status_code == 204
    wait.until(lambda: all(p["pid"] != started["pid"] for p in processes(api, shared)), 5, "its end")
    assert kill(api, shared, started["pid"]).status_code == 404


def test_signals_reach_it_by_tag(api, shared):
    background(api, shared, "trap 'echo bye > /tmp/bye; exit 3' TERM; while :; do sleep 0.05; done", tag="worker")
    wait.until(lambda: any(p.get("tag") == "worker" for p in processes(api, shared)), 5, "the process")
    time.sleep(0.5)
    assert kill(api, shared, "worker", signal="SIGTERM").status_code == 204
    wait.until(lambda: api.read(shared, "/tmp/bye").status_code == 200, 5, "the trap")
    for selector, query, status in (("worker2", {}, 404), ("99999", {}, 404), ("worker", {"signal": "SIGHUP"}, 400),
                                    ("a%20b", {}, 400)):
        response = kill(api, shared, selector, **query)
        assert response.status_code == status, (selector, response.text)
        error_of(response)


@pytest.mark.parametrize("way", ["foreground", "background", "stream"])
def test_environment_and_folder_are_honoured(api, shared, way):
    script = "echo $COLOUR-$PWD"
    fields = {"envs": {"COLOUR": "green"}, "cwd": "/var/tmp"}
    if way == "foreground":
        text = api.shell(shared, script, **fields)
    elif way == "background":
        background(api, shared, f"{script} > /tmp/way", **fields)
        wait.until(lambda: (r := api.read(shared, "/tmp/way")).status_code == 200 and r.content, 5, "the output")
        text = api.read_ok(shared, "/tmp/way").decode().strip()
    else:
        socket = api.exec_socket(shared)
        socket.send({"type": "start", "cmd": "bash", "args": ["-c", script], **fields})
        text = "".join(m["data"] for m in socket.messages() if m["type"] == "stdout").strip()
    assert text == "green-/var/tmp"


@pytest.mark.parametrize("fields,field", [({"cwd": "/nowhere"}, "cwd"), ({"envs": {"A": 1}}, "envs"),
                                          ({"envs": []}, "envs"), ({"background": "yes"}, "background"),
                                          ({"background": True, "tag": "a b"}, "tag"), ({"cwd": 1}, "cwd")])
def test_wrong_fields_are_named(api, shared, fields, field):
    response = api.exec_raw(shared, "true", **fields)
    assert response.status_code == 400, response.text
    code, message = error_of(response)
    assert code == "invalid_request" and field in message


def test_a_stream_shows_it_from_now_on_and_its_end(api, shared):
    started = background(api, shared, "read -t 1; for i in 1 2 3; do echo line $i; sleep 0.1; done; exit 5")
    socket = api.process_socket(shared, started["tag"])
    frames = list(socket.messages())
    assert frames[0] == {"type": "start", "pid": started["pid"]}
    assert b"".join(text_of(f) for f in frames if f["type"] == "stdout") == b"line 1\nline 2\nline 3\n"
    assert frames[-1]["type"] == "exit" and frames[-1]["exit_code"] == 5
    late = list(api.process_socket(shared, str(started["pid"])).messages())
    assert [f["type"] for f in late] == ["start", "exit"] and late[-1]["exit_code"] == 5
    gone = list(api.process_socket(shared, "never-was").messages())
    assert gone[-1]["type"] == "error" and gone[-1]["code"] == "not_found"


def test_a_viewer_that_vanishes_stalls_nobody(api, shared):
    started = background(api, shared, "i=0; while :; do echo $i; i=$((i+1)); done")
    dead, live = api.process_socket(shared, started["tag"]), api.process_socket(shared, started["tag"])
    assert dead.receive()["type"] == "start" and live.receive()["type"] == "start"
    dead.receive()
    dead.drop()
    seen, end = 0, time.monotonic() + 3
    while time.monotonic() < end:
        seen += len(text_of(live.receive()))
    assert seen > 10_000
    assert kill(api, shared, started["tag"]).status_code == 204
    assert [f["type"] for f in live.messages()][-1] == "exit"


def test_streams_end_typed_at_a_pause_and_the_process_goes_on(api, make):
    sandbox_id = make()
    started = background(api, sandbox_id, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done")
    socket = api.process_socket(sandbox_id, started["tag"])
    assert socket.receive()["type"] == "start"
    before = int(text_of(socket.receive()).split()[-1])
    api.pause(sandbox_id)
    last = list(socket.messages())[-1]
    assert last["type"] == "error" and last["code"] == "invalid_state" and "was paused" in last["data"], last
    api.resume(sandbox_id)
    again = api.process_socket(sandbox_id, started["tag"])
    assert again.receive() == {"type": "start", "pid": started["pid"]}
    assert int(text_of(again.receive()).split()[0]) > before


def test_a_hundred_processes_at_once(api, shared):
    tags = [background(api, shared, "exec sleep 300", tag=f"many-{i}")["tag"] for i in range(100)]
    assert {p["tag"] for p in processes(api, shared) if p.get("tag", "").startswith("many-")} == set(tags)
    for tag in tags:
        assert kill(api, shared, tag).status_code == 204
    wait.until(lambda: not [p for p in processes(api, shared) if p.get("tag", "").startswith("many-")], 10, "their end")
    groups = api.shell(shared, "find /sys/fs/cgroup/user -mindepth 1 -type d | wc -l")
    assert int(groups) <= 2, "the groups of ended processes are left"
