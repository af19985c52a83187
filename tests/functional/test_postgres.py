"""The same main job with a real PostgreSQL behind the control plane."""
import os

import pytest

from harness import postgres, wait
from harness.api import Api, error_of

SYSTEM = "postgres"
pytestmark = pytest.mark.skipif(not postgres.binaries(), reason="no PostgreSQL server is installed")


def test_the_main_job(api, system, make, no_leaks):
    sandbox_id = make(timeout_sec=600)
    assert api.exec(sandbox_id, "python3", ["-c", "print(6 * 7)"])["stdout"] == "42\n"
    api.write_ok(sandbox_id, "/root/kept", b"kept")
    assert api.pause(sandbox_id)["status"] == "paused"
    resumed = api.resume(sandbox_id)
    assert (resumed["status"], resumed["timeout_sec"]) == ("running", 600)
    assert api.read_ok(sandbox_id, "/root/kept") == b"kept"
    assert api.ping(sandbox_id).status_code == 204
    row = system.postgres.sql(f"SELECT status, timeout_sec FROM sandboxes WHERE id = '{sandbox_id}'")
    assert row == "running|600"
    api.destroy(sandbox_id)
    assert system.postgres.sql(f"SELECT status FROM sandboxes WHERE id = '{sandbox_id}'") == "stopped"


def test_auto_pause_and_loss(system, make):
    paused, dead = make(timeout_sec=1), make()
    os.kill(system.vm_pid(dead), 9)
    system.wait_status(dead, "stopped", 10)
    system.wait_status(paused, "paused", 13)


def test_teams_are_apart(system, make):
    sandbox_id = make()
    other = Api(system.cp_url, system.add_team("other"))
    assert other.list() == []
    assert other.request("GET", f"/v1/sandboxes/{sandbox_id}").status_code == 404
    other.close()


def test_bad_values_are_values_not_sql(api):
    response = api.request("GET", "/v1/sandboxes/x';DROP TABLE sandboxes;--")
    assert response.status_code == 404
    assert isinstance(api.list(), list)


def test_a_second_migration_changes_nothing(system):
    system.run("wrenn-cp", "migrate")
    assert system.run("wrenn-cp", "bootstrap").strip() == "", "bootstrap made a second key"


def test_it_survives_a_restart_of_the_database(api, system, make):
    """Connections break; calls answer typed errors meanwhile and work again after."""
    sandbox_id = make()
    with open(os.path.join(system.postgres.folder, "data", "postmaster.pid"), encoding="ascii") as pid_file:
        postmaster = int(pid_file.readline())
    system.postgres.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                        "WHERE pid <> pg_backend_pid() AND usename = 'wrenn'")
    response = api.request("GET", f"/v1/sandboxes/{sandbox_id}")
    if response.status_code != 200:
        assert response.status_code == 503 and error_of(response)[0] == "db_unavailable"
    wait.until(lambda: api.status(sandbox_id) == "running", 15, "the database to be used again")
    assert os.path.exists(f"/proc/{postmaster}")
