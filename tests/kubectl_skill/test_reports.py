"""`report` finds the page of a run where the trainer puts it, with the user's own access to the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_skill.errors import NotFoundError, RefusedError, UnavailableError
from kubectl_skill.reports import Place, fetch, place
from skill_store.repository import Repository
from tests.operator import raw, test_picture
from tests.operator.raw import UID, Raw
from tests.seaweedfs import Bucket

PAGE = b"<!doctype html><html>report</html>"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "")  # and it is as it was after the test
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def judged(repository: str) -> Raw:
    """A rejected update of this repository."""
    body = test_picture.rejected().body
    body["spec"]["model"]["uri"] = repository
    return body


def test_update_that_nothing_has_judged_has_none():
    with pytest.raises(NotFoundError, match=r"has no report: .* kubectl skill status refund-tool"):
        place(raw.update(), None)


def test_page_of_a_repository_in_a_folder(tmp_path: Path):
    repository = f"file://{tmp_path}"
    where = place(judged(repository), None)
    with pytest.raises(NotFoundError, match="lies on a volume that the update's pods see"):
        fetch(where)
    Repository(repository).run(UID).put("report.html", PAGE)
    assert fetch(where) == PAGE


def test_where_it_lies_and_how_it_is_had_by_hand():
    body = judged("s3://models/llm/")
    body["spec"]["storage"] = {"endpoint": "http://s3.inside:9000"}
    where = place(body, None)
    assert where.uri == f"s3://models/llm/runs/{UID}/report.html"
    assert where.by_hand == f"aws s3 cp {where.uri} report.html --endpoint-url http://s3.inside:9000"
    assert place(body, "http://127.0.0.1:8333").endpoint == "http://127.0.0.1:8333"


def test_endpoint_of_the_environment_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://from.here:9000")
    body = judged("s3://models/llm")
    body["spec"]["storage"] = {"endpoint": "http://s3.inside:9000"}
    assert place(body, None).endpoint == "http://from.here:9000"


@pytest.mark.store
def test_page_in_a_bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch):
    where = place(judged(s3.uri), s3.server.endpoint)
    with pytest.raises(NotFoundError, match=r"report\.html"):
        fetch(where)
    Repository(s3.uri).run(UID).put("report.html", PAGE)
    assert fetch(where) == PAGE
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    with pytest.raises(RefusedError, match="give your own access to the store"):
        fetch(where)


def test_store_that_is_only_reached_inside_the_cluster(unused_port: int, monkeypatch: pytest.MonkeyPatch):
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    where = Place("s3://models/llm", f"runs/{UID}/report.html", f"http://127.0.0.1:{unused_port}")
    with pytest.raises(UnavailableError, match="kubectl port-forward"):
        fetch(where)
