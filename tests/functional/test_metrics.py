"""What a sandbox uses, from real samples."""
import time

import pytest

from harness import wait
from harness.api import error_of


def metrics(api, sandbox_id, **query):
    return api.request("GET", f"/v1/sandboxes/{sandbox_id}/metrics", params=query)


def points(api, sandbox_id, range_name="5m"):
    response = metrics(api, sandbox_id, range=range_name)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["sandbox_id"] == sandbox_id and body["range"] == range_name
    return body["points"]


def test_work_shows(api, make):
    sandbox_id = make()
    wait.until(lambda: len(points(api, sandbox_id)) >= 4, 10, "samples of an idle sandbox")
    api.exec(sandbox_id, "timeout", ["3", "sh", "-c", "while :; do :; done"])
    api.shell(sandbox_id, "dd if=/dev/urandom of=/root/big bs=1M count=40 status=none; sync")
    time.sleep(1.2)
    seen = points(api, sandbox_id)
    assert max(p["cpu_pct"] for p in seen) > 60
    assert seen[-1]["disk_bytes"] - seen[0]["disk_bytes"] > 30 << 20
    assert all(p["mem_bytes"] > 10 << 20 for p in seen)
    assert [p["timestamp_unix"] for p in seen] == sorted(p["timestamp_unix"] for p in seen)
    assert abs(seen[-1]["timestamp_unix"] - time.time()) < 30
    assert len(seen) >= 6 and points(api, sandbox_id, "10m")
    assert metrics(api, sandbox_id).json()["range"] == "10m"
    assert points(api, sandbox_id, "24h") == [], "no five minutes have passed"


def test_a_paused_one_keeps_them_and_a_stopped_one_has_none(api, make):
    sandbox_id = make()
    wait.until(lambda: points(api, sandbox_id), 10, "a sample")
    api.pause(sandbox_id)
    kept = points(api, sandbox_id)
    assert kept
    api.resume(sandbox_id)
    wait.until(lambda: len(points(api, sandbox_id)) > len(kept), 10, "a sample after the resume")
    assert all(p["cpu_pct"] < 400 for p in points(api, sandbox_id))
    api.destroy(sandbox_id)
    response = metrics(api, sandbox_id, range="5m")
    assert response.status_code == 404
    error_of(response)


@pytest.mark.parametrize("name", ["3h", "", "5M", "-1"])
def test_ranges_are_checked(api, shared, name):
    response = metrics(api, shared, range=name)
    assert response.status_code == 400 and "range" in error_of(response)[1]
