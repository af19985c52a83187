"""A guest whose root has put its own program in the guest agent's place: what it answers costs the agent little, and
its neighbours nothing."""
import json
import os
import select
import socket
import struct
import time

import pytest

from harness import wait
from harness.api import error_of
from harness.sampler import Sampler

MIB = 1 << 20
STREAMS = 200
PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "harness", "hostile_envd.py")


class Peak(Sampler):
    """The most resident memory of agent and control plane, above what it was."""
    PERIOD_SEC = 0.02

    def __init__(self, system):
        super().__init__()
        self.programs = (system.agent, system.cp)
        self.before = [p.rss_bytes() for p in self.programs]
        self.most = 0

    def sample(self):
        now = [p.rss_bytes() for p in self.programs]
        self.most = max(self.most, *(a - b for a, b in zip(now, self.before)))


@pytest.fixture(scope="module", name="hostile")
def fixture_hostile(system):
    """A sandbox whose every answer comes from tests/harness/hostile_envd.py."""
    api = system.api
    sandbox_id = api.create()["id"]
    with open(PROGRAM, "rb") as program:
        api.write_ok(sandbox_id, "/root/hostile.py", program.read())
    api.exec_raw(sandbox_id, "bash", ["-c", "python3 /root/hostile.py >/root/log 2>&1"], background=True)

    def taken_over():
        answer = api.request("GET", f"/v1/sandboxes/{sandbox_id}/processes")
        return answer.status_code != 200

    wait.until(taken_over, 60, "the hostile program to answer")
    yield sandbox_id
    api.request("DELETE", f"/v1/sandboxes/{sandbox_id}")


def test_lists_of_millions_of_nothing(api, system, shared, hostile):
    api.shell(shared, "true")
    with Peak(system) as peak:
        for _ in range(3):
            for method, path, body in (("POST", "files/list", {"path": "/"}), ("GET", "processes", None)):
                answer = api.request(method, f"/v1/sandboxes/{hostile}/{path}", json=body)
                assert answer.status_code >= 400, answer.text[:200]
                error_of(answer)
        assert api.shell(shared, "echo here") == "here"
    print(f"{peak.most / MIB:.1f} MiB more at most")
    assert peak.most < 64 * MIB, f"{peak.most / MIB:.0f} MiB more"


def open_stream(system, sandbox_id):
    """ExecStream of the agent; the socket, its answer unread."""
    message = json.dumps({"sandboxId": sandbox_id, "cmd": "true"}).encode()
    body = struct.pack(">BI", 0, len(message)) + message
    raw = socket.create_connection(("127.0.0.1", system.agent_port), timeout=30)
    raw.sendall((f"POST /hostagent.v1.HostAgentService/ExecStream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                 f"{system.secret}\r\nContent-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
    return raw


def test_streams_that_announce_much_and_send_nothing(api, system, shared, hostile):
    assert api.shell(shared, "echo here") == "here"
    with Peak(system) as peak:
        streams = [open_stream(system, hostile) for _ in range(STREAMS)]
        try:
            wait.until(lambda: len(select.select(streams, [], [], 0)[0]) == STREAMS, 60, "the agent to refuse them all")
            began = time.monotonic()
            assert api.shell(shared, "echo here") == "here"
            print(f"the neighbour's command took {time.monotonic() - began:.2f} s")
            told = b""
            while b"resource_exhausted" not in told:
                more = streams[0].recv(65536)
                assert more, told
                told += more
        finally:
            for each in streams:
                each.close()
    print(f"{peak.most / MIB:.1f} MiB more at most")
    assert peak.most < 64 * MIB, f"{peak.most / MIB:.0f} MiB more"
