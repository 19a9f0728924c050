"""A server whose store lost its last changes, as real processes: nothing older is served in silence."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Deploy
from tests.e2e.processes import eventually


def test_a_store_without_its_last_changes_is_not_served_until_an_administrator_decides(deploy: Deploy) -> None:
    """W12: kill -9, the -wal is gone: the server says what is lost and what to do, and does not serve the past."""
    deployment = deploy()
    deployment.start()
    file = Path(deployment.store.removeprefix("sqlite:///"))
    record = file.with_name(file.name + ".revision")
    # Its end writes everything into the file.
    deployment.server.stop()
    deployment.server.start()
    deployment.serves()
    before = deployment.revision
    deployment.opengnsadmin("category", "add", "late")
    eventually(lambda: record.exists() and f":{before + 1}" in record.read_text(), "the record of the change")
    deployment.server.kill()
    for part in ("-wal", "-shm"):
        file.with_name(file.name + part).unlink()
    deployment.server.start()
    assert deployment.server.ended() == 1
    said = deployment.server.shown_log()
    assert "an older state was restored, or the last changes were lost" in said and "Traceback" not in said, said
    deployment.opengnsadmin("store", "new-id", "--store", f"sqlite:///{file}", "--yes")
    deployment.server.start()
    deployment.serves()
    assert deployment.revision <= before
