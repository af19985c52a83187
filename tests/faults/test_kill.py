"""kill -9 of each part at ten points of a sandbox's life: nothing leaks, no sandbox is in two places, and the
system finds back to one truth by itself."""
import os
import subprocess
import threading
import time

import pytest

from harness import leaks, wait

MARK = b"written before the fault"
# An owner of a transition that shows no life for 20 s is replaced; then one more reconcile pass.
CONVERGE_SEC = 45
CRASH_ENVD = """
with open("/proc/1/maps") as maps:
    regions = [line.split() for line in maps if "r-xp" in line and "envd" in line]
with open("/proc/1/mem", "r+b", buffering=0) as memory:
    for region in regions:
        low, high = (int(part, 16) for part in region[0].split("-"))
        memory.seek(low)
        memory.write(b"\\xcc" * (high - low))
"""


class Point:
    """One moment of a life: `prepare` brings a sandbox there, `act` is what goes on when the fault strikes."""

    def __init__(self, name, before="running", act=None, delay_sec=0.0):
        self.name = name
        self.before = before
        self.act = act
        self.delay_sec = delay_sec


def act_create(api, _):
    return api.request("POST", "/v1/sandboxes", json={})


def act_exec(api, sandbox_id):
    return api.exec_raw(sandbox_id, "sleep", ["20"], timeout_sec=15)


def act_stream(api, sandbox_id):
    socket = api.exec_socket(sandbox_id, limit_sec=30)
    socket.send({"type": "start", "cmd": "bash", "args": ["-c", "while true; do echo x; sleep 0.05; done"]})
    for _ in socket.messages():
        pass


def act_upload(api, sandbox_id):
    return api.write(sandbox_id, "/root/upload", bytes(32 << 20), stream=True)


def act_pause(api, sandbox_id):
    return api.request("POST", f"/v1/sandboxes/{sandbox_id}/pause")


def act_resume(api, sandbox_id):
    return api.request("POST", f"/v1/sandboxes/{sandbox_id}/resume")


def act_destroy(api, sandbox_id):
    return api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")


POINTS = [
    Point("creating", "none", act_create, 0.15),
    Point("created"),
    Point("in exec", act=act_exec, delay_sec=0.3),
    Point("in a stream", act=act_stream, delay_sec=0.3),
    Point("in an upload", act=act_upload, delay_sec=0.2),
    Point("pausing", act=act_pause, delay_sec=0.05),
    Point("paused", "paused"),
    Point("resuming", "paused", act_resume, 0.08),
    Point("resumed", "resumed"),
    Point("destroying", act=act_destroy, delay_sec=0.02),
]


def bring_to(api, point):
    """A sandbox at the start of `point`; None when the point begins without one."""
    if point.before == "none":
        return None
    sandbox_id = api.create()["id"]
    api.write_ok(sandbox_id, "/root/mark", MARK)
    if point.before in ("paused", "resumed"):
        api.pause(sandbox_id)
    if point.before == "resumed":
        api.resume(sandbox_id)
    return sandbox_id


def act_in_thread(api, point, sandbox_id):
    """Runs the point's call as a client whose errors do not matter; it must end by itself."""
    def run():
        try:
            point.act(api, sandbox_id)
        except Exception:  # pylint: disable=broad-except
            pass  # the fault is allowed to show in the answer; the checks come later

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def truth(system, sandbox_id):
    """The one state on which row, agent and host agree; raises while they do not."""
    row = system.api.status(sandbox_id)
    agent = system.rpc.status(sandbox_id)
    processes = leaks.vm_processes().get(sandbox_id, [])
    wanted = {"running": ("running", 1), "paused": ("paused", 0), "stopped": (None, 0), "error": (None, 0)}
    assert row in wanted, f"the row is {row}"
    assert (agent, len(processes)) == wanted[row], f"row {row}, agent {agent}, processes {processes}"
    return row


def settled(system, sandbox_id):
    """The state, once nobody is left who would still change it: a transition whose owner died holds the row
    until its lease ends and then goes on, and answers 409 to others meanwhile."""
    state = truth(system, sandbox_id)
    if state == "paused":
        system.api.resume(sandbox_id)
        state = "resumed"
    if state in ("running", "resumed"):
        assert system.api.exec(sandbox_id, "echo", ["alive"])["stdout"] == "alive\n"
    return state


def check_alive_or_gone(system, sandbox_id, had_mark):
    """What a client may rely on: a live sandbox works and has its data; one that ended is gone for good."""
    state = wait.until(lambda: settled(system, sandbox_id), CONVERGE_SEC, f"one truth about {sandbox_id}", 0.2)
    if had_mark and state in ("running", "resumed"):
        assert system.api.read_ok(sandbox_id, "/root/mark") == MARK
    return state


def converge(system, before, had_mark):
    """All sandboxes that exist now, in their final states, by id. Then they are destroyed."""
    rows = {each["id"] for each in system.api.list() if each["status"] not in ("stopped", "error")}
    states = {}
    for sandbox_id in rows | set(system.rpc.list()[0]) | before:
        states[sandbox_id] = check_alive_or_gone(system, sandbox_id, sandbox_id in had_mark)
    for sandbox_id in states:
        system.api.destroy(sandbox_id)
    left = system.settle(30)
    assert not left, "\n".join(left)
    return states


# ---- parts of one sandbox: each point alone

@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name.replace(" ", "-"))
def test_vmm_killed(system, api, point):
    sandbox_id = bring_to(api, point)
    known = set(leaks.vm_processes())
    thread = act_in_thread(api, point, sandbox_id) if point.act else None
    time.sleep(point.delay_sec)
    # The VM of the sandbox, or the one that is being created right now.
    victims = [pid for key, pids in leaks.vm_processes().items() for pid in pids
               if key == sandbox_id or (sandbox_id is None and key not in known)]
    for pid in victims:
        os.kill(pid, 9)
    if thread:
        thread.join(60)
        assert not thread.is_alive(), f"the client's call hangs after the VM was killed while {point.name}"
    states = converge(system, {sandbox_id} - {None}, {sandbox_id})
    if victims and not point.act:
        assert states[sandbox_id] == "stopped"


@pytest.mark.parametrize("point", [p for p in POINTS if p.name not in ("creating", "paused", "resuming")],
                         ids=lambda point: point.name.replace(" ", "-"))
def test_envd_killed(system, api, point):
    """The guest's PID 1 is crashed from inside. The guest ends with it, so its sandbox must end too; a guest that
    is not there yet, or stands still, has no envd to kill."""
    sandbox_id = bring_to(api, point)
    api.write_ok(sandbox_id, "/tmp/crash.py", CRASH_ENVD.encode())
    api.shell(sandbox_id, "(sleep 0.4; exec python3 /tmp/crash.py) </dev/null >/dev/null 2>&1 & disown")
    time.sleep(max(0.0, 0.4 - point.delay_sec))
    thread = act_in_thread(api, point, sandbox_id) if point.act else None
    if thread:
        thread.join(60)
        assert not thread.is_alive(), f"the client's call hangs after envd died while {point.name}"
    if point.name in ("created", "resumed", "in exec", "in a stream", "in an upload"):
        system.wait_status(sandbox_id, "stopped", 30)
    if point.name == "pausing":
        # Paused before the crash: it comes the moment the guest runs again.
        if api.status(sandbox_id) == "paused":
            api.request("POST", f"/v1/sandboxes/{sandbox_id}/resume")
        system.wait_status(sandbox_id, ("stopped", "paused"), 30)
    api.destroy(sandbox_id)
    left = system.settle(30)
    assert not left, "\n".join(left)


# ---- programs: all points at once, twice with another moment

@pytest.mark.timeout(400)
@pytest.mark.parametrize("extra_sec", [0.05, 0.35])
@pytest.mark.parametrize("victim", ["wrenn-agent", "wrenn-cp", "both"])
def test_program_killed(system, api, victim, extra_sec):
    at = {point.name: (point, bring_to(api, point)) for point in POINTS}
    known = {sandbox_id for _, sandbox_id in at.values() if sandbox_id}
    threads = [act_in_thread(api, point, sandbox_id) for point, sandbox_id in at.values() if point.act]
    time.sleep(extra_sec)
    for program in (system.agent, system.cp):
        if victim in (program.name, "both"):
            program.kill()
    if victim != "wrenn-cp":
        system.start_agent()
    if victim != "wrenn-agent":
        system.start_cp()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a client's call hangs"
    states = converge(system, known, known)
    for name in ("created", "resumed", "in exec", "in a stream", "in an upload"):
        assert states[at[name][1]] == "running", f"a sandbox {name} did not outlive {victim}: {states[at[name][1]]}"
    assert states[at["paused"][1]] in ("running", "resumed")
    for name in ("pausing", "resuming"):
        assert states[at[name][1]] in ("running", "resumed"), f"{name}: {states[at[name][1]]}"


def test_a_second_agent_is_refused(system):
    """Two agents would fight over namespaces and sandboxes."""
    done = subprocess.run(system.agent.argv, env=dict(system.env, AGENT_LISTEN_ADDR="127.0.0.1:0"), capture_output=True,
                          text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "another wrenn-agent" in done.stdout + done.stderr
    assert system.agent.alive()
