"""Ending a command ends all that it started; signalling it, or its own end, does not."""
import itertools
import json

import pytest

from harness import wait
from harness.api import error_of
from test_pty import Terminal

# A length of sleep of its own for each case, by which its processes are found.
NUMBERS = itertools.count(70_001)


class Tree:
    """A leader, children in its process group, and one that has left it."""
    SIZE = 4

    def __init__(self, api, sandbox_id):
        self.api, self.sandbox_id, self.number = api, sandbox_id, next(NUMBERS)
        self.script = (f"setsid sleep {self.number} & sleep {self.number} & (trap '' TERM HUP; sleep {self.number}) & "
                       f"sleep {self.number}; true")

    def count(self):
        # Not a name that this command itself has.
        text = str(self.number)
        return int(self.api.exec(self.sandbox_id, "pgrep", ["-c", "-f", f"^sleep {text[:-1]}[{text[-1]}]$"])["stdout"])

    def grown(self):
        wait.until(lambda: self.count() == self.SIZE, 30, "the whole tree")

    def gone(self):
        wait.until(lambda: self.count() == 0, 30, "the end of the whole tree")

    def background(self):
        answer = self.api.exec_raw(self.sandbox_id, "bash", ["-c", self.script], background=True)
        assert answer.status_code == 202, answer.text
        return answer.json()

    def stream(self, **fields):
        socket = self.api.exec_socket(self.sandbox_id)
        socket.send({"type": "start", "cmd": "bash", "args": ["-c", self.script], **fields})
        assert socket.receive()["type"] == "start"
        return socket

    def process(self, method, selector, **query):
        return self.api.request(method, f"/v1/sandboxes/{self.sandbox_id}/processes/{selector}", params=query)


@pytest.fixture(name="tree")
def fixture_tree(api, shared):
    tree = Tree(api, shared)
    yield tree
    api.exec(shared, "pkill", ["-9", "-f", f"^sleep {tree.number}$"])


@pytest.mark.parametrize("way", ["disconnect", "stop"])
def test_a_stream_that_is_left_or_stopped(tree, way):
    socket = tree.stream()
    tree.grown()
    if way == "disconnect":
        socket.drop()
    else:
        socket.send({"type": "stop"})
        assert list(socket.messages())[-1]["type"] == "exit"
    tree.gone()


def test_a_stream_that_is_left_before_it_has_started(api, shared, tree):
    for _ in range(3):
        socket = api.exec_socket(shared)
        socket.send({"type": "start", "cmd": "bash", "args": ["-c", tree.script]})
        socket.drop()
    # Whatever has begun of them by the time that a later command has run, ends.
    api.shell(shared, "true")
    tree.gone()


def test_time_limits(api, tree):
    tree.script = f"touch /tmp/begun-{tree.number}; {tree.script}"
    socket = tree.stream(timeout_sec=5)
    assert list(socket.messages())[-1]["type"] == "error"
    tree.gone()
    assert api.read_ok(tree.sandbox_id, f"/tmp/begun-{tree.number}") == b"", "it ended before it had begun"
    answer = api.exec_raw(tree.sandbox_id, "sh", ["-c", tree.script], timeout_sec=2)
    assert answer.status_code == 504, answer.text
    tree.gone()


def test_the_output_limit(api, tree):
    answer = api.exec_raw(tree.sandbox_id, "bash", ["-c", f"(setsid sleep {tree.number} &); exec head -c 20M /dev/zero"])
    assert answer.status_code >= 400, answer.status_code
    error_of(answer)
    tree.gone()


def test_a_client_that_hangs_up(api, tree):
    body = json.dumps({"cmd": "bash", "args": ["-c", tree.script], "timeout_sec": 300}).encode()
    api.send_and_hang_up("POST", f"/v1/sandboxes/{tree.sandbox_id}/exec", body, after_sec=1.5)
    tree.gone()


def test_delete_ends_a_job_with_all_that_it_started(tree):
    job = tree.background()
    tree.grown()
    assert tree.process("DELETE", job["tag"]).status_code == 204
    tree.gone()


def test_a_signal_goes_to_the_process_group(tree):
    job = tree.background()
    tree.grown()
    assert tree.process("DELETE", job["pid"], signal="SIGTERM").status_code == 204
    # One has left the group and one ignores the signal.
    wait.until(lambda: tree.count() == 2, 30, "the end of those that were meant")


def test_delete_ends_a_terminal_with_its_jobs(api, shared, tree):
    terminal = Terminal(api, shared, type="start")
    tag = terminal.next()["tag"]
    terminal.type("".join(f"{command} {tree.number} &\n" for command in ("sleep", "setsid sleep", "nohup sleep", "sleep")))
    tree.grown()
    assert tree.process("DELETE", tag).status_code == 204
    tree.gone()
    terminal.socket.close()


def test_what_a_command_leaves_behind_when_it_ends_lives_on(api, shared, tree):
    api.shell(shared, f"sleep {tree.number} >/dev/null 2>&1 & setsid sleep {tree.number} >/dev/null 2>&1 & true")
    wait.until(lambda: tree.count() == 2, 10, "both")
    api.shell(shared, "true")
    assert tree.count() == 2
