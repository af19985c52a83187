"""What runs inside the machines of powercut.sh, whose second disk holds everything of a Wrenn agent.

usage: powercut.py before FS   makes the file system and two paused sandboxes, and cuts the power
       powercut.py after FS    finds both as they were
"""
import base64
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from harness import wait  # noqa: E402
from harness.agent_rpc import AgentRpc  # noqa: E402
from harness.program import Program  # noqa: E402

DEVICE, DATA, LAB = "/dev/vdb", "/data", "/var/lib/wrenn"
PORT, SECRET = 50051, "s" * 32
# Made from a template, and one of a size that no template has: its guest boots, and its memory is its own.
SANDBOXES = {"sb-template": 512, "sb-booted": 200}
MAKE_FS = {"ext4": ["mkfs.ext4", "-q", "-F", DEVICE], "xfs": ["mkfs.xfs", "-q", "-f", DEVICE]}
BALLAST = "head -c 8M /dev/urandom > /dev/shm/ballast && sha256sum < /dev/shm/ballast > /root/sum && sync"
# A program that is not in memory any more is read anew, from the base image.
CHECK = "sha256sum < /dev/shm/ballast | cmp - /root/sum && echo 3 > /proc/sys/vm/drop_caches && python3 -c 'print(6*7)'"


def run(*argv):
    subprocess.run(argv, check=True, timeout=240)


def agent():
    env = {"PATH": os.environ["PATH"], "HOME": "/root", "WRENN_DIR": DATA, "AGENT_DRIVER": "firecracker",
           "AGENT_LISTEN_ADDR": f"127.0.0.1:{PORT}", "AGENT_SHARED_SECRET": SECRET, "AGENT_READY_SLOTS": "1"}
    return Program("wrenn-agent", [f"{os.environ['WRENN_BUILDS']}/wrenn-agent", "serve"], env, f"{DATA}/agent.log")


def start(program):
    rpc = AgentRpc(f"http://127.0.0.1:{PORT}", SECRET, limit_sec=120)
    program.start()
    wait.until(lambda: rpc.call("ListSandboxes") is not None, 120, "the agent to answer", abort=program.death)
    return rpc


def shell(rpc, sandbox_id, script):
    answer = rpc.call("Exec", sandboxId=sandbox_id, cmd="bash", args=["-c", script], timeoutSec=60)
    output = base64.b64decode(answer.get("stdout", "")).decode()
    assert not answer.get("exitCode"), f"{script}: {answer}, {output}"
    return output.strip()


def before(fs):
    run(*MAKE_FS[fs])
    os.makedirs(DATA, exist_ok=True)
    run("mount", DEVICE, DATA)
    for folder in ("kernels", "bin", "images"):
        run("cp", "-a", f"{LAB}/{folder}", DATA)
    program = agent()
    subprocess.run([program.argv[0], "prepare"], env=program.env, check=True, timeout=240)
    rpc = start(program)
    for sandbox_id, memory in SANDBOXES.items():
        rpc.call("CreateSandbox", sandboxId=sandbox_id, memoryMb=memory)
        shell(rpc, sandbox_id, BALLAST)
    # A snapshot that replaces one, and a journal that replaces a durable one.
    rpc.call("PauseSandbox", sandboxId="sb-template")
    rpc.call("ResumeSandbox", sandboxId="sb-template")
    run("sync")
    # Said ahead, since from the answer on nothing has time to reach the outside.
    print(f"the power of {fs} is cut now", flush=True)
    for sandbox_id in SANDBOXES:
        rpc.call("PauseSandbox", sandboxId=sandbox_id)
    with open("/proc/sysrq-trigger", "w", encoding="ascii") as trigger:
        trigger.write("b")
    raise AssertionError("the machine goes on")


def after(fs):
    os.makedirs(DATA, exist_ok=True)
    run("mount", DEVICE, DATA)
    with open("/proc/mounts", encoding="ascii") as mounts:
        assert any(line.split()[1:3] == [DATA, fs] for line in mounts)
    program = agent()
    rpc = start(program)
    try:
        for sandbox_id in SANDBOXES:
            assert rpc.status(sandbox_id) == "paused", rpc.list()
        for sandbox_id in SANDBOXES:
            rpc.call("ResumeSandbox", sandboxId=sandbox_id)
            assert shell(rpc, sandbox_id, CHECK) == "42"
        print(f"after the power cut on {fs} all is there")
    except BaseException:
        print(program.tail(), flush=True)
        for folder in ("sandboxes", "snapshots"):
            subprocess.run(["ls", "-lR", f"{DATA}/{folder}"], check=False, timeout=20)
        raise


if __name__ == "__main__":
    {"before": before, "after": after}[sys.argv[1]](sys.argv[2])
