"""A private PostgreSQL server: own data folder, own port on loopback, run as the user postgres."""
import glob
import os
import shutil
import signal
import subprocess
import tempfile

from harness import wait


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    return os.path.dirname(found[-1]) if found else None


class Postgres:
    def __init__(self, port):
        self.port = port
        self.folder = tempfile.mkdtemp(prefix="wrenn-pg-", dir="/tmp")
        self.log_path = os.path.join(self.folder, "log")
        self.process = None
        shutil.chown(self.folder, "postgres", "postgres")

    def _as_postgres(self, argv):
        return ["runuser", "-u", "postgres", "--"] + argv

    def start(self):
        data = os.path.join(self.folder, "data")
        made = subprocess.run(self._as_postgres([f"{binaries()}/initdb", "-D", data, "-A", "trust", "-U", "wrenn", "-N"]),
                              cwd="/", capture_output=True, text=True, timeout=120, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self._as_postgres([f"{binaries()}/postgres", "-D", data, "-p", str(self.port), "-h", "127.0.0.1",
                                   "-k", self.folder, "-c", "fsync=off"]),
                cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        wait.until(lambda: self.sql("SELECT 1", "postgres") == "1", 60, "PostgreSQL to answer")
        self.sql("CREATE DATABASE wrenn", "postgres")

    @property
    def url(self):
        return f"postgres://wrenn@127.0.0.1:{self.port}/wrenn"

    def sql(self, statement, database="wrenn"):
        done = subprocess.run(["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "wrenn", "-d", database, "-tA",
                               "-v", "ON_ERROR_STOP=1", "-c", statement],
                              cwd="/", capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{statement}: {done.stderr}")
        return done.stdout.strip()

    def stop(self):
        if self.process is not None:
            # runuser passes the signal on; SIGINT is PostgreSQL's fast shutdown.
            with open(os.path.join(self.folder, "data", "postmaster.pid"), encoding="ascii") as pid_file:
                os.kill(int(pid_file.readline()), signal.SIGINT)
            self.process.wait(30)
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)
