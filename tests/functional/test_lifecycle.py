"""Create, run code, pause, resume, destroy; and what a pause must keep."""
import concurrent.futures
import json
import os
import re
import time

import pytest

from harness import leaks, wait
from harness.api import ApiFailure, error_of, text_of
from harness.sampler import Sampler

COUNTER = """
import os, time
count = 0
while True:
    count += 1
    with open("/dev/shm/counter.new", "w") as out:
        out.write(f"{os.getpid()} {count}")
    os.rename("/dev/shm/counter.new", "/dev/shm/counter")
    time.sleep(0.05)
"""


def start_counter(api, sandbox_id):
    api.write_ok(sandbox_id, "/tmp/counter.py", COUNTER.encode())
    api.shell(sandbox_id, "setsid python3 /tmp/counter.py </dev/null >/dev/null 2>&1 &")
    wait.until(lambda: api.read(sandbox_id, "/dev/shm/counter").status_code == 200, 20, "the counter to run")


def counter(api, sandbox_id):
    pid, count = api.read_ok(sandbox_id, "/dev/shm/counter").split()
    return int(pid), int(count)


def clock_offset(api, sandbox_id):
    """Guest clock minus host clock as an interval in seconds.

    A file is stamped by the guest while its upload lasts on the host, so each upload bounds the offset from both
    sides; the intervals of several are intersected, of more where the machine is busy.
    """
    low, high = float("-inf"), float("inf")
    tick = 0.010  # file times have the granularity of the guest's tick
    for _ in range(20):
        brackets = []
        for index in range(12):
            before = time.time()
            api.write_ok(sandbox_id, f"/dev/shm/stamp{index}", b"x")
            brackets.append((before, time.time()))
        stamps = api.shell(sandbox_id, "stat -c %.9Y " + " ".join(f"/dev/shm/stamp{i}" for i in range(12))).split()
        low = max(low, *(float(stamp) - after for stamp, (_, after) in zip(stamps, brackets)))
        high = min(high, *(float(stamp) + tick - before for stamp, (before, _) in zip(stamps, brackets)))
        if high - low < 0.1:
            break
    return low, high


def assert_clock_right(api, sandbox_id):
    low, high = clock_offset(api, sandbox_id)
    assert high - low < 0.2, f"the measurement is too coarse: {low:.3f}..{high:.3f} s"
    # Wrong only if no offset within the bracket is allowed.
    assert low <= 0.050 and high >= -0.050, f"the guest's clock is {low * 1000:.0f}..{high * 1000:.0f} ms off"


class TestCreate:
    def test_answers_a_running_sandbox(self, api, system, make):
        sandbox_id = make()
        sandbox = api.get(sandbox_id)
        assert sandbox["status"] == "running"
        assert sandbox["template"] == "minimal"
        assert (sandbox["vcpus"], sandbox["memory_mb"], sandbox["timeout_sec"]) == (1, 512, 0)
        assert sandbox["id"].startswith("sb-") and len(sandbox["id"]) == 29
        assert sandbox["host_ip"].startswith("10.11.")
        assert {"created_at", "started_at", "last_active_at", "last_updated"} <= set(sandbox)
        seen = system.rpc.sandbox(sandbox_id)
        assert seen["hostIp"] == sandbox["host_ip"] and seen["memoryMb"] == 512

    def test_an_empty_body_means_all_defaults(self, api):
        sandbox = api.expect(201, "POST", "/v1/sandboxes").json()
        api.destroy(sandbox["id"])
        assert sandbox["template"] == "minimal"

    def test_another_shape_boots_cold_and_has_its_size(self, api, make):
        sandbox_id = make(vcpus=2, memory_mb=256)
        sandbox = api.get(sandbox_id)
        assert (sandbox["vcpus"], sandbox["memory_mb"]) == (2, 256)
        assert api.shell(sandbox_id, "nproc") == "2"
        total_kb = int(api.shell(sandbox_id, "awk '/MemTotal/ {print $2}' /proc/meminfo"))
        assert 180 * 1024 < total_kb < 256 * 1024

    def test_clones_differ_in_randomness(self, api, make):
        script = ("import os, uuid, json, random; "
                  "print(json.dumps([os.urandom(16).hex(), str(uuid.uuid4()), random.random()]))")
        seen = [json.loads(api.exec(make(), "python3", ["-c", script])["stdout"]) for _ in range(3)]
        for kind in range(3):
            values = [each[kind] for each in seen]
            assert len(set(values)) == 3, f"clones share random values: {values}"

    def test_machine_ids(self, api, make):
        first, second = make(), make()
        ids = [api.shell(each, "cat /etc/machine-id") for each in (first, second)]
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids) and ids[0] != ids[1], ids
        api.shell(second, "echo 0123456789abcdef0123456789abcdef > /etc/machine-id")
        for each, wanted in ((first, ids[0]), (second, "0123456789abcdef0123456789abcdef")):
            api.pause(each)
            api.resume(each)
            assert api.shell(each, "cat /etc/machine-id") == wanted, "it is the sandbox's, or its owner's"

    def test_nothing_writes_to_the_disk_unasked(self, api, make):
        """The disk was made ready before; a kernel that finishes that job itself writes tens of MiB in each clone."""
        sandbox_id = make()
        counts = []
        for _ in range(2):
            counts.append(int(api.shell(sandbox_id, "awk '$3 == \"vdb\" { print $10 }' /proc/diskstats")) * 512)
            time.sleep(3)
        assert counts[1] < 4 << 20 and counts[1] - counts[0] < 1 << 20, counts

    def test_the_clock_is_right(self, api, make):
        assert_clock_right(api, make())

    def test_capsules_is_the_same_thing(self, api):
        sandbox = api.expect(201, "POST", "/v1/capsules", json={"template": "minimal"}).json()
        path = f"/v1/capsules/{sandbox['id']}"
        assert api.expect(200, "GET", path).json()["id"] == sandbox["id"]
        answer = api.expect(200, "POST", f"{path}/exec", json={"cmd": "echo", "args": ["hi"]}).json()
        assert answer["stdout"] == "hi\n"
        assert sandbox["id"] in [each["id"] for each in api.expect(200, "GET", "/v1/capsules").json()]
        api.expect(204, "DELETE", path)


class TestExec:
    def test_output_and_exit_code(self, api, shared):
        answer = api.exec(shared, "bash", ["-c", "echo out; echo err >&2; exit 3"])
        assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("out\n", "err\n", 3)
        assert answer["encoding"] == "utf-8" and answer["sandbox_id"] == shared and answer["duration_ms"] >= 0

    def test_python_and_the_tools_of_the_image(self, api, shared):
        assert api.exec(shared, "python3", ["-c", "print(6 * 7)"])["stdout"] == "42\n"
        for tool in ("git", "curl", "bash", "sudo"):
            assert api.shell(shared, f"command -v {tool}")

    def test_an_unknown_command_is_127(self, api, shared):
        assert api.exec(shared, "no-such-command")["exit_code"] == 127

    def test_a_command_over_its_timeout_is_ended(self, api, shared):
        response = api.exec_raw(shared, "sleep", ["4711"], timeout_sec=1)
        assert response.status_code == 504, response.text
        assert error_of(response)[0] == "timeout"
        assert api.exec(shared, "pgrep", ["-f", "sleep 4711"])["exit_code"] == 1

    def test_parallel_commands_do_not_mix(self, api, shared):
        sockets = [api.exec_socket(shared) for _ in range(4)]
        for index, each in enumerate(sockets):
            each.send({"type": "start", "cmd": "bash", "args": ["-c", f"for i in 1 2 3; do echo {index}; sleep 0.1; done"]})
        for index, each in enumerate(sockets):
            out = b"".join(text_of(m) for m in each.messages() if m["type"] == "stdout")
            assert out == f"{index}\n".encode() * 3

    def test_a_stream_has_start_output_and_exit(self, api, shared):
        socket = api.exec_socket(shared)
        socket.send({"type": "start", "cmd": "bash", "args": ["-c", "echo out; echo err >&2; exit 5"]})
        messages = list(socket.messages())
        assert messages[0]["type"] == "start" and messages[0]["pid"] > 0
        assert messages[-1]["type"] == "exit" and messages[-1]["exit_code"] == 5
        assert b"".join(text_of(m) for m in messages if m["type"] == "stdout") == b"out\n"
        assert b"".join(text_of(m) for m in messages if m["type"] == "stderr") == b"err\n"

    def test_a_stream_is_live(self, api, shared):
        socket = api.exec_socket(shared)
        socket.send({"type": "start", "cmd": "bash", "args": ["-c", "echo first; sleep 4712"]})
        assert socket.receive()["type"] == "start"
        assert text_of(socket.receive()) == b"first\n"
        socket.send({"type": "stop"})
        last = list(socket.messages())[-1]
        assert last["type"] == "exit"


class TestPauseAndResume:
    @pytest.fixture(scope="class")
    def state(self, system):
        """A sandbox taken through pause and resume, with what was seen before and after."""
        api = system.api
        sandbox_id = api.create()["id"]
        try:
            start_counter(api, sandbox_id)
            api.write_ok(sandbox_id, "/root/data.bin", bytes(range(256)) * 4096)
            api.shell(sandbox_id, "echo on-disk > /root/kept && sync")
            before = {"env": api.shell(sandbox_id, "env | grep ^WRENN | sort"),
                      "boot": api.shell(sandbox_id, "cat /proc/sys/kernel/random/boot_id"),
                      "counter": counter(api, sandbox_id), "uuid": api.shell(sandbox_id, "cat /proc/sys/kernel/random/uuid")}
            paused = api.pause(sandbox_id)
            paused_seen = {"status": api.status(sandbox_id), "agent": system.rpc.status(sandbox_id),
                           "exec": api.exec_raw(sandbox_id, "true"), "ping": api.ping(sandbox_id),
                           "again": api.request("POST", f"/v1/sandboxes/{sandbox_id}/pause"),
                           "write": api.write(sandbox_id, "/tmp/x", b"x"), "read": api.read(sandbox_id, "/root/kept")}
            time.sleep(2)  # the guest must not feel this
            resumed = api.resume(sandbox_id)
            after = {"counter": counter(api, sandbox_id)}
            clock = clock_offset(api, sandbox_id)
            after["env"] = api.shell(sandbox_id, "env | grep ^WRENN | sort")
            after["boot"] = api.shell(sandbox_id, "cat /proc/sys/kernel/random/boot_id")
            yield {"id": sandbox_id, "before": before, "after": after, "paused": paused, "resumed": resumed,
                   "paused_seen": paused_seen, "clock": clock}
        finally:
            system.ensure_up()
            api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")

    def test_status(self, state):
        assert state["paused"]["status"] == "paused"
        assert state["paused_seen"]["status"] == "paused" and state["paused_seen"]["agent"] == "paused"
        assert state["resumed"]["status"] == "running"

    @pytest.mark.parametrize("operation", ["exec", "ping", "again", "write", "read"])
    def test_a_paused_sandbox_refuses(self, state, operation):
        response = state["paused_seen"][operation]
        assert response.status_code == 409, response.text
        assert error_of(response)[0] in ("invalid_state", "conflict")

    def test_memory_goes_on(self, state, api):
        pid, count = state["before"]["counter"]
        pid_after, count_after = state["after"]["counter"]
        assert pid_after == pid, "the process is another one"
        assert count <= count_after < count + 150, f"the counter went from {count} to {count_after}"
        wait.until(lambda: counter(api, state["id"])[1] > count_after, 10, "the counter to go on")

    def test_it_is_the_same_boot(self, state):
        assert state["after"]["boot"] == state["before"]["boot"]

    def test_disk_is_kept(self, state, api):
        assert api.shell(state["id"], "cat /root/kept") == "on-disk"
        assert api.read_ok(state["id"], "/root/data.bin") == bytes(range(256)) * 4096

    def test_environment_is_kept(self, state):
        assert state["after"]["env"] == state["before"]["env"]
        assert f"WRENN_SANDBOX_ID={state['id']}" in state["after"]["env"].split("\n")

    def test_clock_is_set(self, state):
        low, high = state["clock"]
        assert high - low < 0.2, f"the measurement is too coarse: {low:.3f}..{high:.3f} s"
        assert low <= 0.050 and high >= -0.050, f"the guest's clock is {low * 1000:.0f}..{high * 1000:.0f} ms off"

    def test_resume_of_a_running_one_is_a_conflict(self, state, api):
        response = api.request("POST", f"/v1/sandboxes/{state['id']}/resume")
        assert response.status_code == 409, response.text
        assert error_of(response)[0] in ("invalid_state", "conflict")

    def test_a_second_generation_keeps_both(self, state, api):
        sandbox_id = state["id"]
        api.shell(sandbox_id, "echo second > /root/second")
        pid, count = counter(api, sandbox_id)
        api.pause(sandbox_id)
        api.resume(sandbox_id)
        assert counter(api, sandbox_id)[0] == pid and counter(api, sandbox_id)[1] >= count
        assert api.shell(sandbox_id, "cat /root/kept /root/second") == "on-disk\nsecond"

    def test_dirty_memory_survives_exactly(self, api, system, make):
        """Every page of a big buffer must come back as it was, pages of zeros over old content too. Firecracker's own copy
        of what the guest wrote is dropped and must not reach the disk."""
        sandbox_id = make()
        script = """
import hashlib, os, sys, time
block = bytearray(os.urandom(1 << 20) * 32)
block[8 << 20:16 << 20] = bytes(8 << 20)
print(hashlib.sha256(block).hexdigest(), flush=True)
while not os.path.exists("/dev/shm/go"):
    time.sleep(0.05)
print(hashlib.sha256(block).hexdigest(), flush=True)
"""
        api.write_ok(sandbox_id, "/tmp/block.py", script.encode())
        api.shell(sandbox_id, "setsid python3 /tmp/block.py </dev/null >/dev/shm/sums 2>&1 &")
        lines = lambda: api.read_ok(sandbox_id, "/dev/shm/sums").decode().split()  # noqa: E731
        wait.until(lambda: len(lines()) == 1, 40, "the buffer to be filled")
        written = written_bytes(system.root) if system.driver == "firecracker" else 0
        api.pause(sandbox_id)
        if system.driver == "firecracker":
            stored = os.path.getsize(f"{system.snapshots}/{sandbox_id}/pages")
            assert stored > 24 << 20 and written_bytes(system.root) - written < stored + (16 << 20)
        api.resume(sandbox_id)
        api.write_ok(sandbox_id, "/dev/shm/go", b"")
        wait.until(lambda: len(lines()) == 2, 40, "the buffer to be hashed again")
        before, after = lines()
        assert before == after

    def test_freed_memory_comes_back_and_firecracker_does_not_keep_it(self, api, system, make):
        """Twice, since a first life maps its memory from a file and a second is loaded on demand."""
        sandbox_id = make()
        free_kib = lambda: int(api.shell(sandbox_id, "awk '/^MemFree/{print $2}' /proc/meminfo"))  # noqa: E731
        for life in range(2):
            free_before = free_kib()
            api.shell(sandbox_id, "python3 -c 'import os; x = os.urandom(1 << 20) * 120'")
            api.pause(sandbox_id)
            if system.driver == "firecracker":
                assert os.path.getsize(f"{system.snapshots}/{sandbox_id}/pages") < 100 << 20, f"life {life}"
            api.resume(sandbox_id)
            wait.until(lambda: free_kib() > free_before - (48 << 10), 20, "the guest to have its memory again")
            assert api.shell(sandbox_id, "python3 -c 'x = bytearray(120 << 20); print(sum(x[::4096]))'") == "0"


def written_bytes(folder):
    """Since boot, to the disk below `folder`, with all that waits to be written."""
    os.sync()
    device = os.stat(folder).st_dev
    with open(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat", encoding="ascii") as stat:
        return int(stat.read().split()[6]) * 512


def in_parallel(call, arguments):
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(call, arguments))


class MostStarting(Sampler):
    """The most VMs seen at a time that did not run yet, while no sandbox stops running."""

    def __init__(self, system):
        super().__init__()
        self.system, self.most = system, 0

    def sample(self):
        with_vm = sum(each.startswith("sb-") for each in leaks.vm_processes())
        running = sum(each["status"] == "running" for each in self.system.rpc.list()[0].values())
        self.most = max(self.most, with_vm - running)


class TestCrowd:
    """More at a time than the agent starts at a time: four for each processor."""
    PLACES = 4 * os.cpu_count()

    @staticmethod
    def silent_guests(system):
        with open(system.agent.log_path, encoding="utf-8", errors="replace") as log:
            return log.read().count("keeps no others from starting")

    def test_starts_take_turns_and_all_come_up(self, api, system, make):
        crowd = min(self.PLACES + 2, 24)
        silent = self.silent_guests(system)
        with MostStarting(system) as created:
            ids = in_parallel(lambda _: make(), range(crowd))
        in_parallel(api.pause, ids)
        with MostStarting(system) as resumed:
            in_parallel(api.resume, ids)
        assert in_parallel(lambda each: api.shell(each, "echo up"), ids) == ["up"] * crowd
        # On a slow machine guests may be silent for so long that others take their places.
        places = self.PLACES + self.silent_guests(system) - silent
        assert 1 < created.most <= places
        assert 1 < resumed.most <= places


class TestDestroy:
    @pytest.mark.parametrize("first", ["running", "paused"])
    def test_nothing_is_left(self, api, system, make, first, no_leaks):
        sandbox_id = make()
        if first == "paused":
            api.pause(sandbox_id)
        api.destroy(sandbox_id)
        assert api.status(sandbox_id) == "stopped"
        assert system.rpc.sandbox(sandbox_id) is None
        assert api.exec_raw(sandbox_id, "true").status_code in (404, 409)

    def test_twice_is_fine(self, api, make):
        sandbox_id = make()
        api.destroy(sandbox_id)
        api.destroy(sandbox_id)

    def test_an_unknown_one_is_not_found(self, api):
        with pytest.raises(ApiFailure) as failure:
            api.destroy("sb-aaaaaaaaaaaaaaaaaaaaaaaaaa")
        assert failure.value.response.status_code == 404
