"""A whole Wrenn: control plane and agent from builds/, own data folder and ports, shared kernel and images."""
import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import sqlite3
import subprocess
import tempfile

import httpx

from harness import leaks, wait
from harness.agent_rpc import AgentRpc
from harness.api import Api
from harness.program import Program

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILDS = os.environ.get("WRENN_BUILDS", os.path.join(REPO, "builds"))
# Holds kernels/ and images/ as scripts/build-guest.sh makes them.
BASE = os.environ.get("WRENN_TEST_DIR") or os.environ.get("WRENN_DIR") or "/var/lib/wrenn"

# Whose word about its clients the control plane believes.
TRUSTED_PROXY = "127.0.0.5"
PREPARE_LIMIT_SEC = 240
START_LIMIT_SEC = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class System:
    """`driver` fixes the VM driver, so that only the first system proves KVM; `small_disk_mib` puts the sandbox
    and snapshot folders on a file system of that size."""

    def __init__(self, database_url=None, postgres=None, driver="auto", small_disk_mib=0, images=f"{BASE}/images"):
        # Below BASE, so that images can be hard-linked.
        os.makedirs(f"{BASE}/t", exist_ok=True)
        self.root = tempfile.mkdtemp(dir=f"{BASE}/t", prefix="")
        self.images = images
        self.postgres = postgres
        self.own_mounts = []
        data = self.root
        if small_disk_mib:
            data = f"{self.root}/small"
            os.makedirs(data)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={small_disk_mib}m,mode=700", "wrenn-test", data],
                           check=True, timeout=10)
            self.own_mounts.append(data)
        self.data = data
        self.sandboxes = f"{data}/sandboxes"
        self.snapshots = f"{data}/snapshots"
        cp_port, agent_port, proxy_port = free_port(), free_port(), free_port()
        self.cp_url = f"http://127.0.0.1:{cp_port}"
        self.agent_url = f"http://127.0.0.1:{agent_port}"
        self.agent_port = agent_port
        self.cp_port = cp_port
        self.proxy_port = proxy_port
        self.driver = driver
        self.secret = secrets.token_hex(32)
        self.database = f"{self.root}/wrenn.db"
        # The programs see these settings and nothing of the caller's but how sanitizers report.
        self.env = {
            **{name: value for name, value in os.environ.items() if name.endswith("SAN_OPTIONS")},
            "PATH": os.environ["PATH"],
            "HOME": self.root,
            "WRENN_DIR": self.root,
            "DATABASE_URL": database_url or f"sqlite://{self.database}",
            "CP_LISTEN_ADDR": f"127.0.0.1:{cp_port}",
            "CP_HOST_AGENT_ADDR": self.agent_url,
            "CP_PROXY_LISTEN_ADDR": f"127.0.0.1:{self.proxy_port}",
            "CP_SANDBOX_DOMAIN": "sandbox.test",
            "CP_TRUSTED_PROXIES": TRUSTED_PROXY,
            "AGENT_LISTEN_ADDR": f"127.0.0.1:{agent_port}",
            "AGENT_KERNEL_PATH": f"{BASE}/kernels",
            "AGENT_IMAGES_PATH": self.images,
            "AGENT_SANDBOXES_PATH": self.sandboxes,
            "AGENT_SNAPSHOTS_PATH": self.snapshots,
            "AGENT_SHARED_SECRET": self.secret,
            "AGENT_DRIVER": driver,
            "AGENT_FIRECRACKER_BIN": f"{BASE}/bin/firecracker",
            "LOG_LEVEL": "debug" if os.environ.get("WRENN_TEST_DEBUG") else "info",
        }
        self.agent = Program("wrenn-agent", [f"{BUILDS}/wrenn-agent", "serve"], self.env, f"{self.root}/agent.log")
        self.cp = Program("wrenn-cp", [f"{BUILDS}/wrenn-cp", "serve"], self.env, f"{self.root}/cp.log")
        self.rpc = AgentRpc(self.agent_url, self.secret)
        self.api = None
        self.key = None

    # ---- life
    def start(self):
        self.run("wrenn-agent", "prepare", limit_sec=PREPARE_LIMIT_SEC)
        self.start_agent()
        self.run("wrenn-cp", "migrate")
        self.key = self.run("wrenn-cp", "bootstrap").strip()
        assert self.key.startswith("wrn_") and len(self.key) == 44, f"bootstrap printed {self.key!r}, not one key"
        self.api = Api(self.cp_url, self.key)
        self.start_cp()

    def run(self, program, *arguments, limit_sec=60):
        done = subprocess.run([f"{BUILDS}/{program}", *arguments], env=self.env, capture_output=True, text=True,
                              timeout=limit_sec, check=False)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start_agent(self):
        self.agent.start()
        wait.until(lambda: self.rpc.call("ListSandboxes") is not None, START_LIMIT_SEC, "the agent to answer",
                   abort=self.agent.death)

    def start_cp(self):
        self.cp.start()
        wait.until(lambda: httpx.get(f"{self.cp_url}/health", timeout=2, trust_env=False).status_code == 200,
                   START_LIMIT_SEC, "the control plane to answer", abort=self.cp.death)

    def ensure_up(self):
        """Starts again what a failed test left dead, so that one failure does not make many."""
        if not self.agent.alive():
            self.start_agent()
        if not self.cp.alive():
            self.start_cp()

    def destroy_all(self, keep=()):
        self.ensure_up()
        for each in self.api.list():
            if each["status"] not in ("stopped", "error") and each["id"] not in keep:
                self.api.request("DELETE", f"/v1/sandboxes/{each['id']}")
        for sandbox_id in self.rpc.list()[0]:
            if sandbox_id not in keep:
                try:
                    self.rpc.call("DestroySandbox", sandboxId=sandbox_id)
                except AssertionError:
                    pass

    def stop(self):
        """Ends the programs; answers what they left behind. The data folder is removed if that is nothing."""
        try:
            self.destroy_all()
            left = self.settle(20)
            statuses = {program.name: program.stop() for program in (self.cp, self.agent)}
            left += [f"{name} ended with status {status}" for name, status in statuses.items() if status]
            left += leaks.problems_when_stopped(self, self.own_mounts)
        finally:
            self.cp.kill()
            self.agent.kill()
            for pids in leaks.vm_processes().values():
                for pid in pids:
                    os.kill(pid, 9)
            for point in self.own_mounts:
                subprocess.run(["umount", "-l", point], check=False, timeout=10)
            if self.postgres is not None:
                self.postgres.stop()
        if not left:
            shutil.rmtree(self.root, ignore_errors=True)
        return left

    def settle(self, limit_sec):
        """Waits until everything on the host is accounted for; answers what is not."""
        left = []

        def clean():
            nonlocal left
            left = leaks.problems(self, self.own_mounts)
            return not left

        try:
            wait.until(clean, limit_sec, "nothing unaccounted for", every_sec=0.2)
        except wait.WaitFailed as error:
            return left or [str(error)]
        return []

    def tails(self):
        return f"{self.agent.tail()}\n\n{self.cp.tail()}"

    # ---- the two views of a sandbox
    def wait_status(self, sandbox_id, status, limit_sec):
        wanted = {status} if isinstance(status, str) else set(status)

        def reached():
            found = self.api.status(sandbox_id)
            if found in wanted:
                return found
            raise AssertionError(f"it is {found}")

        return wait.until(reached, limit_sec, f"{sandbox_id} to be {' or '.join(sorted(wanted))}", every_sec=0.1)

    def vm_pid(self, sandbox_id):
        pids = leaks.vm_processes().get(sandbox_id, [])
        assert len(pids) == 1, f"{sandbox_id} has VM processes {pids}"
        return pids[0]

    # ---- a second team
    def add_team(self, name):
        """Makes a team with a key beside the API, since account routes come later. Answers the key."""
        key = "wrn_" + secrets.token_hex(20)
        digest = hashlib.sha256(key.encode()).hexdigest()
        statements = (f"INSERT INTO teams (id, name, created_at) VALUES ('{name}', '{name}', 1)",
                      "INSERT INTO team_api_keys (id, team_id, name, key_hash, key_prefix, created_at) "
                      f"VALUES ('key-{name}', '{name}', 'test', '{digest}', '{key[:12]}', 1)")
        for statement in statements:
            self.sql(statement)
        return key

    def sql(self, statement):
        """Runs one statement beside the control plane; answers SQLite's rows or what PostgreSQL prints."""
        if self.postgres is not None:
            return self.postgres.sql(statement)
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as database, database:
            return database.execute(statement).fetchall()
