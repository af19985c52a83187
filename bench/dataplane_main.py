"""bench/dataplane: see docs/benchmarks.md for the method."""
import argparse
import base64
import http.client
import json
import os
import struct
import sys
import time

import websocket
from harness.guest import Guest
from harness.system import BUILDS, System
from measure import Rest, in_parallel, summary, timed

MIB = 1 << 20
LIMIT_SEC = 600
PEAK_TARGET_MIB = 64
SPAWN_SCRIPT = """
import json, os, sys, time
times = []
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
    times.append(time.monotonic() - began)
print(json.dumps(times))
"""


class Envd:
    """Process.Start asked of the guest agent itself, over one kept connection."""

    def __init__(self, guest):
        self.connection = http.client.HTTPConnection(guest.url.removeprefix("http://"), timeout=60)
        self.headers = {"X-Access-Token": guest.token, "Content-Type": "application/connect+json"}
        body = json.dumps({"process": {"cmd": "true"}, "stdin": False}).encode()
        self.body = struct.pack(">BI", 0, len(body)) + body

    def exec(self):
        self.connection.request("POST", "/process.Process/Start", self.body, self.headers)
        answer = self.connection.getresponse().read()
        if b'"exited":true' not in answer:
            raise RuntimeError(answer)


def measure_exec(system, sandbox_id, n):
    rest, guest = Rest(system), Guest(system, sandbox_id)
    envd = Envd(guest)
    samples = []
    for _ in range(n):
        through, _ = timed(rest.exec, sandbox_id, "true", [])
        direct, _ = timed(envd.exec)
        samples.append({"exec_through_rest": through, "exec_at_envd": direct})
    spawns = json.loads(rest.exec(sandbox_id, "python3", ["-c", SPAWN_SCRIPT, str(n)]))
    guest.close()
    return {**summary(samples), **summary([{"spawn_in_guest": value} for value in spawns])}


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as refs:
        refs.write("5")


def upload(system, sandbox_id, path, size):
    """Chunked multipart by a client that holds one piece."""
    piece = os.urandom(MIB)
    connection = http.client.HTTPConnection("127.0.0.1", system.cp_port, timeout=LIMIT_SEC)

    def body():
        yield (b'--B\r\nContent-Disposition: form-data; name="path"\r\n\r\n' + path.encode() +
               b'\r\n--B\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n')
        for _ in range(size // MIB):
            yield piece
        yield b"\r\n--B--\r\n"

    connection.request("POST", f"/v1/sandboxes/{sandbox_id}/files/stream/write", body(),
                       {"X-API-Key": system.key, "Content-Type": "multipart/form-data; boundary=B"},
                       encode_chunked=True)
    answer = connection.getresponse()
    if answer.status != 204:
        raise RuntimeError(f"upload: {answer.status} {answer.read()[:200]}")
    connection.close()


def download(system, sandbox_id, path):
    connection = http.client.HTTPConnection("127.0.0.1", system.cp_port, timeout=LIMIT_SEC)
    connection.request("POST", f"/v1/sandboxes/{sandbox_id}/files/stream/read", json.dumps({"path": path}),
                       {"X-API-Key": system.key, "Content-Type": "application/json"})
    answer, total = connection.getresponse(), 0
    while piece := answer.read(MIB):
        total += len(piece)
    connection.close()
    return total


def measure_file(system, sandbox_id, mib):
    programs = {"wrenn-cp": system.cp.pid, "wrenn-agent": system.agent.pid}
    for pid in programs.values():
        forget_peak(pid)
    up, _ = timed(upload, system, sandbox_id, "/root/big", mib * MIB)
    down, total = timed(download, system, sandbox_id, "/root/big")
    if total != mib * MIB:
        raise RuntimeError(f"{total} bytes came back")
    peaks = {name: round(peak_mib(pid), 1) for name, pid in programs.items()}
    status = system.api.shell(sandbox_id, "grep VmHWM /proc/1/status")
    peaks["envd"] = round(int(status.split()[1]) / 1024, 1)
    system.api.shell(sandbox_id, "rm /root/big")
    return {"mib": mib, "up_mib_per_s": round(mib / up, 1), "down_mib_per_s": round(mib / down, 1), "peak_rss_mib": peaks}


def measure_listing(system, sandbox_id, n):
    system.api.shell(sandbox_id, "mkdir -p /tmp/many && cd /tmp/many && seq 1 10000 | xargs touch")
    rest, samples = Rest(system), []
    for _ in range(n):
        took, answer = timed(rest.call, "POST", f"/v1/sandboxes/{sandbox_id}/files/list", {"path": "/tmp/many"})
        if len(answer["entries"]) != 10_000:
            raise RuntimeError("the listing is not whole")
        samples.append({"list_10000_files": took})
    return summary(samples)


def measure_streams(system, sandbox_id, parallel):
    def one():
        socket = system.api.exec_socket(sandbox_id, LIMIT_SEC)
        socket.send({"type": "start", "cmd": "head", "args": ["-c", "200000", "/dev/zero"]})
        size = 0
        for frame in socket.messages():
            size += len(frame["data"]) if frame["type"] == "stdout" else 0
            if frame["type"] == "exit" and (frame["exit_code"] != 0 or size != 200_000):
                raise RuntimeError(f"{frame}, {size} bytes")

    began = time.monotonic()
    samples = in_parallel(parallel, parallel, lambda: lambda: {"stream": timed(one)[0]})
    return {**summary(samples), "all_done_s": round(time.monotonic() - began, 2), "parallel": parallel}


def measure_echo(system, sandbox_id, n):
    url = f"ws://127.0.0.1:{system.cp_port}/v1/sandboxes/{sandbox_id}/pty"
    socket = websocket.create_connection(url, timeout=60, header=[f"X-API-Key: {system.key}"])

    def until(wanted):
        seen = b""
        while wanted not in seen:
            frame = json.loads(socket.recv())
            seen += base64.b64decode(frame["data"]) if frame["type"] == "output" else b""

    def say(text):
        socket.send(json.dumps({"type": "input", "data": base64.b64encode(text).decode()}))

    socket.send(json.dumps({"type": "start", "cmd": "/bin/cat"}))
    say(b"ready\n")
    until(b"ready\r\nready")

    def one(letter):
        say(letter)
        until(letter)

    samples = [{"pty_echo": timed(one, bytes([97 + i % 26]))[0]} for i in range(n)]
    socket.send(json.dumps({"type": "kill"}))
    socket.close()
    return summary(samples)


def measure(options):
    system = System()
    try:
        system.start()
        sandbox_id = system.api.create()["id"]
        result = {"steps": measure_exec(system, sandbox_id, options.n)}
        result["steps"].update(measure_echo(system, sandbox_id, options.n))
        result["steps"].update(measure_listing(system, sandbox_id, max(5, options.n // 10)))
        result["streams"] = measure_streams(system, sandbox_id, 100)
        result["file"] = measure_file(system, sandbox_id, options.file_mib)
        rss = system.api.shell(sandbox_id, "grep VmRSS /proc/1/status")
        result["envd"] = {"file_mb": round(os.path.getsize(f"{BUILDS}/envd") / 1e6, 2),
                          "rss_mib": round(int(rss.split()[1]) / 1024, 1)}
        system.api.destroy(sandbox_id)
        return result
    finally:
        left = system.stop()
        if left:
            print("left behind: " + "; ".join(left), file=sys.stderr)


def show(result):
    for step, figures in result["steps"].items():
        print(f"{step:20} p50 {figures['p50']:8} ms  p95 {figures['p95']:8}  p99 {figures['p99']:8}  n {figures['n']}")
    steps = result["steps"]
    ratio = steps["exec_through_rest"]["p50"] / steps["exec_at_envd"]["p50"]
    print(f"exec through control plane and agent against envd asked directly: {ratio:.2f} at p50")
    streams = result["streams"]
    print(f"{streams['parallel']} streams of 200 kB at once: all done in {streams['all_done_s']} s, p50 {streams['stream']['p50']} ms")
    file = result["file"]
    print(f"a file of {file['mib']} MiB: up {file['up_mib_per_s']} MiB/s, down {file['down_mib_per_s']} MiB/s")
    for name, peak in file["peak_rss_mib"].items():
        print(f"  peak of {name}: {peak} MiB ({'ok' if peak < PEAK_TARGET_MIB else 'MISSED'}, target < {PEAK_TARGET_MIB})")
    print(f"envd: {result['envd']['file_mb']} MB stripped, {result['envd']['rss_mib']} MiB resident")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--file-mib", type=int, default=1024)
    options = parser.parse_args()
    result = measure(options)
    print(json.dumps(result, indent=1)) if options.json else show(result)


main()
