"""Looking at a value again and again while something else goes on."""
import threading


class Sampler:
    """Calls sample() of a subclass every PERIOD_SEC in a thread of its own while it is entered."""
    PERIOD_SEC = 0.1

    def __init__(self):
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.done.wait(self.PERIOD_SEC):
            self.sample()

    def sample(self):
        raise NotImplementedError

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join(5)
