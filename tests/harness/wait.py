"""Waiting with a deadline: nothing in the tests waits for ever, and a wait that fails says for what."""
import time


class WaitFailed(AssertionError):
    pass


# How long any wait lasts at least: a machine may be many times slower than the one a limit was thought of for.
PATIENCE_SEC = 90


def until(condition, limit_sec, what, every_sec=0.05, abort=None):
    """Polls `condition` until it answers something true, and returns that. After `limit_sec` or PATIENCE_SEC, whichever
    is longer, it fails: a limit ends a test that hangs, and proves no speed (bench/ does).

    Exceptions of the condition count as "not yet"; the last one is part of the failure message. `abort` may
    return a sentence that ends the wait at once (for example "the agent died"). Looking takes at most a third of the
    time: on an emulated machine it costs more than what is waited for.
    """
    began = time.monotonic()
    last = "never true"
    while True:
        looked = time.monotonic()
        try:
            value = condition()
            if value:
                return value
            last = f"last answer: {value!r}"
        except Exception as error:  # pylint: disable=broad-except
            last = f"last error: {type(error).__name__}: {error}"
        reason = abort() if abort else None
        if reason:
            raise WaitFailed(f"waiting for {what}: {reason} ({last})")
        waited = time.monotonic() - began
        if waited > max(limit_sec, PATIENCE_SEC):
            raise WaitFailed(f"waited {waited:.0f} s for {what}; {last}")
        time.sleep(max(every_sec, 2 * (time.monotonic() - looked)))


class Stopwatch:
    def __init__(self):
        self.began = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.began
