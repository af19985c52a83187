"""Folders: list, make, remove."""
import pytest

from harness.api import error_of


def call(api, sandbox_id, what, path, **fields):
    return api.request("POST", f"/v1/sandboxes/{sandbox_id}/files/{what}", json={"path": path, **fields})


def listed(api, sandbox_id, path, **fields):
    response = call(api, sandbox_id, "list", path, **fields)
    assert response.status_code == 200, response.text
    return response.json()["entries"]


def test_a_listing_says_what_is_there(api, shared):
    api.shell(shared, "mkdir -p /tmp/l/sub/deep; cd /tmp/l; printf 12345 > file; chmod 640 file; chown user file;"
                      "ln -s file link; ln -s nowhere dangling; mkfifo pipe; touch sub/inner sub/deep/bottom")
    entries = {e["name"]: e for e in listed(api, shared, "/tmp/l")}
    assert list(entries) == ["dangling", "file", "link", "pipe", "sub"]
    file = entries["file"]
    assert file["path"] == "/tmp/l/file" and file["type"] == "file" and file["size"] == 5
    assert file["mode"] == 0o640 and file["permissions"] == "-rw-r-----"
    assert file["owner"] == "user" and file["group"] == "root" and file["modified_at"] > 1_700_000_000
    assert "symlink_target" not in file
    assert entries["link"]["type"] == "symlink" and entries["link"]["symlink_target"] == "file"
    assert entries["dangling"]["type"] == "symlink" and entries["pipe"]["type"] == "unknown"
    assert entries["sub"]["type"] == "directory"
    deeper = [e["path"] for e in listed(api, shared, "/tmp/l/sub", depth=2)]
    assert deeper == ["/tmp/l/sub/deep", "/tmp/l/sub/deep/bottom", "/tmp/l/sub/inner"]


def test_ten_thousand_files(api, shared):
    api.shell(shared, "mkdir -p /tmp/many; cd /tmp/many; seq -f f%05g 1 10000 | xargs touch")
    names = [e["name"] for e in listed(api, shared, "/tmp/many")]
    assert len(names) == 10_000 and names == sorted(names)


def test_folders_are_made_once_and_removed_whole(api, shared):
    made = call(api, shared, "mkdir", "/tmp/m/a/b")
    assert made.status_code == 200 and made.json()["entry"]["path"] == "/tmp/m/a/b"
    assert made.json()["entry"]["type"] == "directory"
    again = call(api, shared, "mkdir", "/tmp/m/a/b")
    assert again.status_code == 409 and error_of(again)[0] == "conflict"
    api.shell(shared, "touch /tmp/m/a/b/file; ln -s /etc /tmp/m/a/etc")
    assert call(api, shared, "remove", "/tmp/m").status_code == 204
    assert call(api, shared, "remove", "/tmp/m").status_code == 204, "absent is fine"
    assert call(api, shared, "list", "/tmp/m").status_code == 404
    assert api.shell(shared, "ls /etc/passwd") == "/etc/passwd", "a link is removed, not what it leads to"


@pytest.mark.parametrize("what,path,status", [
    ("list", "/etc/passwd", 400), ("list", "/none", 404), ("mkdir", "/etc/passwd", 400),
    ("mkdir", "/etc/passwd/below", 400), ("list", "", 400), ("list", "a\0b", 400), ("list", "/" + "x" * 4096, 400),
    ("mkdir", "/proc/none", 404), ("remove", "/" + "d/" * 2047 + "d", 400),
])
def test_refusals_are_typed(api, shared, what, path, status):
    response = call(api, shared, what, path)
    assert response.status_code in ((status,) if what != "remove" else (204, 400)), response.text
    if response.status_code >= 400:
        error_of(response)


def test_odd_trees(api, shared):
    api.shell(shared, "mkdir -p /tmp/odd; cd /tmp/odd; ln -s loop loop; ln -s . self; "
                      "python3 -c 'import os\nfor i in range(200):\n os.mkdir(\"d\"*15); os.chdir(\"d\"*15)'")
    names = [e["name"] for e in listed(api, shared, "/tmp/odd", depth=64)]
    assert names[:1] == ["d" * 15] and names[-2:] == ["loop", "self"] and len(names) == 66
    assert call(api, shared, "list", "/tmp/odd/loop").status_code in (400, 409)
    assert call(api, shared, "remove", "/tmp/odd").status_code == 204
    assert call(api, shared, "list", "/tmp/odd").status_code == 404


def test_depth_out_of_range(api, shared):
    for depth in (-1, 65, "2", 1.5):
        response = call(api, shared, "list", "/", depth=depth)
        assert response.status_code == 400 and "depth" in error_of(response)[1]


def test_only_of_running_sandboxes(api, make):
    sandbox_id = make()
    api.pause(sandbox_id)
    for what in ("list", "mkdir", "remove"):
        response = call(api, sandbox_id, what, "/tmp/x")
        assert response.status_code == 409 and error_of(response)[0] == "invalid_state"
