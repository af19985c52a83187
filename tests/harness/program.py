"""A program of the system under test: started in its own session, logging to a file, ended by its pid only."""
import os
import signal
import subprocess
import time


class Program:
    def __init__(self, name, argv, env, log_path):
        self.name = name
        self.argv = argv
        self.env = env
        self.log_path = log_path
        self.process = None

    def start(self):
        assert not self.alive(), f"{self.name} runs already"
        with open(self.log_path, "ab") as log:
            log.write(f"--- {time.strftime('%H:%M:%S')} start: {' '.join(self.argv)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def death(self):
        """A sentence when the program should run and does not; None otherwise. Fits wait.until's abort."""
        if self.process is None or self.process.poll() is None:
            return None
        return f"{self.name} ended with status {self.process.returncode}\n{self.tail()}"

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, limit_sec=40):
        """SIGTERM and wait; a program that does not end in time is a failure. Answers its status."""
        if not self.alive():
            return self.process.returncode if self.process else None
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_sec)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {limit_sec} s of SIGTERM\n{self.tail()}") from None

    def kill(self):
        if self.alive():
            self.signal(signal.SIGKILL)
            self.process.wait(10)

    def tail(self, lines=40):
        try:
            with open(self.log_path, "rb") as log:
                log.seek(max(0, os.path.getsize(self.log_path) - 64 * 1024))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return f"last lines of {self.log_path}:\n" + "\n".join(text.splitlines()[-lines:])

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        """What each open descriptor points to."""
        folder = f"/proc/{self.pid}/fd"
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{name}"))
            except FileNotFoundError:
                pass
        return found
