"""Terminals: through the WebSocket, and as `wrenn shell` in a real terminal of ours."""
import base64
import os
import pty
import re
import select
import time

import pytest

from harness.system import BUILDS


class Terminal:
    def __init__(self, api, sandbox_id, **first):
        self.socket = api.pty_socket(sandbox_id)
        self.output = b""
        self.socket.send(first)

    def next(self):
        """The next frame that is no output; output is kept."""
        while (frame := self.socket.receive()) is not None:
            if frame["type"] == "output":
                self.output += base64.b64decode(frame["data"])
            elif frame["type"] != "ping":
                return frame
        return None

    def type(self, text):
        self.socket.send({"type": "input", "data": base64.b64encode(text.encode()).decode()})

    def until(self, wanted, limit_sec=90):
        """Reads output until the pattern is in it; answers the match and drops what came before its end."""
        end = time.monotonic() + limit_sec
        while not (match := re.search(wanted, self.output)):
            assert time.monotonic() < end, self.output
            frame = self.socket.receive()
            assert frame is not None and frame["type"] in ("output", "ping"), frame
            if frame["type"] == "output":
                self.output += base64.b64decode(frame["data"])
        self.output = self.output[match.end():]
        return match


@pytest.fixture(name="terminal")
def fixture_terminal(api, shared):
    terminal = Terminal(api, shared, type="start", cols=91, rows=33, envs={"COLOUR": "green"}, cwd="/tmp")
    started = terminal.next()
    assert started["type"] == "started" and started["pid"] > 0 and re.fullmatch(r"pty-\w{8}", started["tag"])
    terminal.tag, terminal.pid = started["tag"], started["pid"]
    yield terminal
    api.exec(shared, "kill", ["-9", str(terminal.pid)])
    terminal.socket.close()


def test_a_terminal_of_the_size_folder_and_environment_asked_for(terminal):
    terminal.type("echo $(stty size) $COLOUR $PWD $(tty)\n")
    terminal.until(rb"33 91 green /tmp /dev/pts/\d+")
    terminal.socket.send({"type": "resize", "cols": 120, "rows": 50})
    terminal.type("stty size\n")
    terminal.until(rb"50 120")
    terminal.type("exit 7\n")
    assert terminal.next() == {"type": "exit", "exit_code": 7}


def test_control_characters_reach_the_program_in_front(terminal):
    terminal.type("sleep 1000; echo after-$((40+2))\n")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.type("echo next-$((40+3))\n")
    terminal.until(rb"next-43")


def test_a_terminal_outlives_its_socket(api, shared, terminal):
    terminal.type("kept=here-$((20+3)); echo set-$((1+1))\n")
    terminal.until(rb"set-2")
    terminal.socket.drop()
    again = Terminal(api, shared, type="connect", tag=terminal.tag)
    assert again.next() == {"type": "started", "tag": terminal.tag, "pid": terminal.pid}
    again.type("echo $kept\n")
    again.until(rb"here-23")
    again.socket.send({"type": "kill"})
    assert again.next()["type"] == "exit"
    again.socket.close()


def test_what_cannot_be_done_is_told_and_the_terminal_goes_on(terminal):
    for frame, field in (({"type": "resize", "cols": 0, "rows": 10}, "cols"), ({"type": "input", "data": "%"}, "base64"),
                         ({"type": "input"}, "data"), ({"type": "dance"}, "type")):
        terminal.socket.send(frame)
        error = terminal.next()
        assert (error["type"], error["code"], error["fatal"]) == ("error", "invalid_request", False), error
        assert field in error["data"]
    terminal.type("echo still-$((6*7))\n")
    terminal.until(rb"still-42")


@pytest.mark.parametrize("first, code", [
    ({"type": "input", "data": ""}, "invalid_request"),
    ({"type": "start", "cols": 70000}, "invalid_request"),
    ({"type": "start", "envs": ["A=1"]}, "invalid_request"),
    ({"type": "connect"}, "invalid_request"),
    ({"type": "connect", "tag": "pty-00000000"}, "not_found"),
], ids=["input first", "too wide", "envs are a list", "no tag", "unknown tag"])
def test_a_wrong_first_frame_ends_the_socket(api, shared, first, code):
    terminal = Terminal(api, shared, **first)
    error = terminal.next()
    assert (error["type"], error["code"], error["fatal"]) == ("error", code, True), error
    assert terminal.next() is None


def test_wrenn_shell(system, shared):
    child, master = pty.fork()
    if child == 0:
        os.environ.update(WRENN_BASE_URL=f"http://127.0.0.1:{system.cp_port}", WRENN_API_KEY=system.key, TERM="xterm")
        os.execv(f"{BUILDS}/wrenn", ["wrenn", "shell", shared])
    output = b""

    def until(wanted, limit_sec=90):
        nonlocal output
        end = time.monotonic() + limit_sec
        while wanted not in output:
            assert time.monotonic() < end, output
            if select.select([master], [], [], 0.5)[0]:
                output += os.read(master, 65536)

    try:
        os.write(master, b"echo in-the-$((400+4))-guest; hostname\n")
        until(b"in-the-404-guest")
        os.write(master, b"exit 5\n")
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 5
    finally:
        os.close(master)
