"""What an object store answers, in this package's words: the reason decides whether a step is tried again."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from skill_store.errors import StoreError
from skill_store.s3 import fault_of


def answer(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )


@pytest.mark.parametrize(
    ("code", "status", "reason", "retriable"),
    [
        ("NoSuchKey", 404, "NotFound", False),
        ("NoSuchBucket", 404, "NotFound", False),
        ("AccessDenied", 403, "AccessDenied", False),
        ("ExpiredToken", 400, "AccessDenied", False),
        ("SomethingNew", 403, "AccessDenied", False),
        ("PreconditionFailed", 412, "PreconditionFailed", False),
        ("QuotaExceeded", 403, "NoSpace", False),
        ("SlowDown", 503, "StoreUnavailable", True),
        ("TooManyRequests", 429, "StoreUnavailable", True),
        ("Throttling", 400, "StoreUnavailable", True),
        ("RequestTimeout", 400, "StoreUnavailable", True),
        ("IncompleteBody", 400, "StoreUnavailable", True),
        ("BadDigest", 400, "StoreUnavailable", True),
        ("NoSuchUpload", 404, "StoreUnavailable", True),
        ("OperationAborted", 409, "StoreUnavailable", True),
        ("NotImplemented", 501, "StoreFailed", False),
        ("EntityTooLarge", 400, "StoreFailed", False),
    ],
)
def test_an_answer_has_its_reason(code: str, status: int, reason: str, retriable: bool):
    fault = fault_of(answer(code, status), "s3://bucket/key")
    assert (fault.reason, fault.retriable) == (reason, retriable)
    assert "s3://bucket/key" in fault.message


def test_no_answer_and_no_credentials():
    away: StoreError = fault_of(EndpointConnectionError(endpoint_url="http://nowhere"), "s3://bucket/key")
    assert (away.reason, away.retriable) == ("StoreUnavailable", True)
    assert fault_of(NoCredentialsError(), "s3://bucket/key").reason == "AccessDenied"
