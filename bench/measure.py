"""What the benchmarks share: a light REST client, timing, percentiles."""
import http.client
import json
import statistics
import threading
import time


class Rest:
    """One keep-alive connection, as light as Python allows, so that the client does not become the measurement."""

    def __init__(self, system):
        self.connection = http.client.HTTPConnection("127.0.0.1", system.cp_port, timeout=120)
        self.headers = {"X-API-Key": system.key, "Content-Type": "application/json"}

    def call(self, method, path, body=None, wanted=200):
        self.connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != wanted:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def create(self):
        return self.call("POST", "/v1/sandboxes", {}, 201)["id"]

    def exec(self, sandbox_id, cmd, args):
        answer = self.call("POST", f"/v1/sandboxes/{sandbox_id}/exec", {"cmd": cmd, "args": args, "timeout_sec": 60})
        if answer["exit_code"] != 0:
            raise RuntimeError(answer["stderr"])
        return answer["stdout"]

    def pause(self, sandbox_id):
        self.call("POST", f"/v1/sandboxes/{sandbox_id}/pause")

    def resume(self, sandbox_id):
        self.call("POST", f"/v1/sandboxes/{sandbox_id}/resume")

    def destroy(self, sandbox_id):
        self.call("DELETE", f"/v1/sandboxes/{sandbox_id}", wanted=204)


def timed(call, *arguments):
    began = time.monotonic()
    result = call(*arguments)
    return time.monotonic() - began, result


def in_parallel(n, parallel, make_worker):
    """Runs n samples in `parallel` threads; worker() makes one sample."""
    samples, errors, lock = [], [], threading.Lock()
    left = [n]

    def run():
        try:
            worker = make_worker()
            while True:
                with lock:
                    if left[0] == 0 or errors:
                        return
                    left[0] -= 1
                sample = worker()
                with lock:
                    samples.append(sample)
        except Exception as error:  # pylint: disable=broad-except
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(min(parallel, n))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return samples


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(samples):
    """{step: {p50, p95, p99 in ms, n}}"""
    out = {}
    for step in samples[0]:
        values = [sample[step] * 1000 for sample in samples]
        out[step] = {"p50": round(statistics.median(values), 1), "p95": round(percentile(values, 0.95), 1),
                     "p99": round(percentile(values, 0.99), 1), "n": len(values)}
    return out
