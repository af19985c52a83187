"""The floor: QEMU with the agent's own command line and nothing around it.

The command line is read from a VM that the agent started, so both sides run the same machine; files, network
namespace and TAP are made before the clock starts.
"""
import ctypes
import glob
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

CLONE_NEWNET = 0x40000000
GUEST = "169.254.0.21"
ENVD_PORT = 49983
LIMIT_SEC = 60
END_OF_STREAM = 0x02
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, timeout=20)


class Recipe:
    """Command line and files of a clone of the default template, kept apart from the sandbox they came from."""

    def __init__(self, system, sandbox_id, folder):
        self.folder = folder
        with open(f"/proc/{system.vm_pid(sandbox_id)}/cmdline", "rb") as text:
            self.argv = [part.decode() for part in text.read().split(b"\0")[:-1]]
        self.sandbox_dir = f"{system.sandboxes}/{sandbox_id}"
        for name in ("base.ext4", "memory"):
            os.link(f"{self.sandbox_dir}/{name}", f"{folder}/{name}")
        found = sorted(glob.glob(f"{system.images}/minimal/snapshots/1c-512m-*/state"), key=os.path.getmtime)
        self.template = os.path.dirname(found[-1])

    def command(self, overlay, qmp_fd, state_fd):
        places = {"base": f"{self.folder}/base.ext4", "memory": f"{self.folder}/memory", "overlay": overlay}
        out = []
        for word in self.argv:
            # The agent's QEMU sees its files by these names in its jail.
            word = re.sub(r"(file|mem-path)=/(base|overlay|memory)$",
                          lambda found: f"{found[1]}={places[found[2]]}", word)
            word = word.replace("socket,id=qmp,fd=3,", f"socket,id=qmp,fd={qmp_fd},")
            out.append(f"fd:{state_fd}" if word == "fd:4" else word)
        return out


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT_SEC)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        assert "QMP" in json.loads(self.lines.readline())
        self.call("qmp_capabilities")

    def call(self, name, **arguments):
        self.socket.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "return" in answer or "error" in answer:
                return answer["return"]

    def load(self, state_fd):
        """Reads the device state, as the command line's `-incoming defer` waits for."""
        give_up = time.monotonic() + LIMIT_SEC
        self.call("migrate-incoming", uri=f"fd:{state_fd}")
        while self.call("query-status")["status"] == "inmigrate":
            assert time.monotonic() < give_up, "the device state is not read in time"
            time.sleep(0.001)

    def close(self):
        self.lines.close()
        self.socket.close()


def exec_on_envd(cmd, args):
    """One command by process.Process/Start over Connect; answers its standard output."""
    message = json.dumps({"process": {"cmd": cmd, "args": args}}).encode()
    connection = http.client.HTTPConnection(GUEST, ENVD_PORT, timeout=LIMIT_SEC)
    connection.request("POST", "/process.Process/Start", struct.pack(">BI", 0, len(message)) + message,
                       {"Content-Type": "application/connect+json", "Connect-Protocol-Version": "1"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    events = []
    while True:
        flags, size = struct.unpack(">BI", answer.read(5))
        body = json.loads(answer.read(size))
        if flags & END_OF_STREAM:
            assert "error" not in body, body
            break
        events.append(body["event"])
    connection.close()
    assert any("end" in event for event in events), events
    return events


def thaw():
    """The template was saved with its processes frozen; for ours /init does this."""
    connection = http.client.HTTPConnection(GUEST, ENVD_PORT, timeout=LIMIT_SEC)
    connection.request("POST", "/unfreeze")
    assert connection.getresponse().status == 204
    connection.close()


def wait_envd():
    give_up = time.monotonic() + LIMIT_SEC
    while True:
        try:
            connection = http.client.HTTPConnection(GUEST, ENVD_PORT, timeout=1)
            connection.request("GET", "/health")
            connection.getresponse().read()
            connection.close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.002)


class Floor(threading.Thread):
    """One worker in its own network namespace, starting `n` VMs one after another."""

    def __init__(self, recipe, index, n, command):
        super().__init__(daemon=True)
        self.recipe = recipe
        self.index = index
        self.n = n
        self.exec_command = command
        self.netns = f"bench-{index}"
        self.samples = []
        self.error = None

    def run(self):
        try:
            run("ip", "netns", "add", self.netns)
            run("ip", "-n", self.netns, "link", "set", "lo", "up")
            run("ip", "-n", self.netns, "tuntap", "add", "tap0", "mode", "tap")
            run("ip", "-n", self.netns, "link", "set", "tap0", "address", "02:FC:00:00:00:06", "up")
            run("ip", "-n", self.netns, "addr", "add", "169.254.0.22/30", "dev", "tap0")
            with open(f"/run/netns/{self.netns}", "rb") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
            for _ in range(self.n):
                self.samples.append(self.one())
        except Exception as error:  # pylint: disable=broad-except
            self.error = error
        finally:
            subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True, timeout=20)

    def one(self):
        overlay = f"{self.recipe.folder}/overlay-{self.index}.ext4"
        qmp_path = f"{self.recipe.folder}/qmp-{self.index}"
        run("cp", "--sparse=always", "--reflink=auto", f"{self.recipe.template}/overlay", overlay)
        if os.path.exists(qmp_path):
            os.remove(qmp_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(qmp_path)
        listener.listen(1)
        state = open(f"{self.recipe.template}/state", "rb")  # pylint: disable=consider-using-with
        marks = [time.monotonic()]
        state_descriptor = state.fileno()
        process = subprocess.Popen(self.recipe.command(overlay, listener.fileno(), state.fileno()),
                                   pass_fds=(listener.fileno(), state.fileno()), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            listener.close()
            state.close()
            qmp = Qmp(qmp_path)
            marks.append(time.monotonic())
            qmp.load(state_descriptor)
            marks.append(time.monotonic())
            qmp.call("cont")
            marks.append(time.monotonic())
            wait_envd()
            marks.append(time.monotonic())
            thaw()
            exec_on_envd(*self.exec_command)
            marks.append(time.monotonic())
            qmp.close()
        except Exception:
            process.kill()
            raise RuntimeError(process.stderr.read().decode(errors="replace")[-2000:])
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            process.stderr.close()
        names = ("spawn_to_qmp", "load", "cont", "first_answer", "first_exec")
        sample = {name: later - earlier for name, earlier, later in zip(names, marks, marks[1:])}
        sample["total"] = marks[-1] - marks[0]
        return sample


def measure(recipe, n, parallel, command):
    """`n` starts in `parallel` workers; a list of samples in seconds."""
    workers = [Floor(recipe, index, n // parallel + (index < n % parallel), command) for index in range(parallel)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LIMIT_SEC * (worker.n + 1))
        if worker.error:
            raise worker.error
    return [sample for worker in workers for sample in worker.samples]


def prepare(system, folder):
    sandbox_id = system.api.create()["id"]
    recipe = Recipe(system, sandbox_id, folder)
    system.api.destroy(sandbox_id)
    return recipe
