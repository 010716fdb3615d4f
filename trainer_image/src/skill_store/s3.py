"""Object storage that speaks S3. The only module that knows boto3 and botocore, and where their faults become ours.

boto3 itself is needed for uploads only and imported there: a fetch, for which a serving pod waits, starts without it.

Credentials, endpoint and region come from the environment as the AWS SDK reads them (variables, profile, web identity):
this module never takes keys as arguments, so none can be logged.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError
from botocore.session import get_session
from urllib3.exceptions import HTTPError

from skill_store.errors import (
    AccessDenied,
    BucketMissing,
    NoSpace,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from skill_store.protocol import CHUNK_BYTES, Entry, Stored
from skill_store.retry import retried

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH = 1000
"""Source: S3 API, DeleteObjects takes at most this many keys."""
_PART_BYTES = 64 << 20
_CONNECTIONS = 32
READ_SECONDS = 60.0
"""A connection on which nothing has come for so long is given up, and the range asked for again."""
_NOT_S3 = (ArithmeticError, AttributeError, HTTPError, LookupError, RecursionError, ResponseParserError, TypeError)
"""What boto3 raises, beside ValueError, of an answer that has not the form of S3's (seen by tests/fuzz)."""
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_DENIED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_DENIED |= {"AllAccessDisabled", "AccountProblem", "Forbidden", "401", "403"}
_ABSENT = {"NoSuchKey", "NotFound", "404"}
_TRANSIENT = {"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "ConditionalRequestConflict"}
_TRANSIENT |= {"OperationAborted", "Throttling", "IncompleteBody", "BadDigest", "NoSuchUpload"}
_FULL = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded"}
_UNCONDITIONAL = {"NotImplemented", "501"}


class S3Store:
    """Objects below `s3://bucket/prefix`. Safe to use from several threads."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._client = _client()

    @property
    def uri(self) -> str:
        """Returns `s3://bucket/prefix`."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> Stored:
        """Returns a whole object; started again where the body breaks off."""
        return retried(lambda: self._get(key))

    def _get(self, key: str) -> Stored:
        with self._translated(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return Stored(answer["Body"].read(), answer["ETag"])

    def read(self, key: str, start: int, length: int) -> Iterator[bytes]:
        """Yields a range by one ranged GET."""
        span = f"bytes={start}-{start + length - 1}"
        with self._translated(key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, Range=span)
            except ClientError as error:
                if _code(error) in {"InvalidRange", "416"}:  # the object ends before the range begins
                    return
                raise
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes an object with If-None-Match or If-Match. A 409 (two writers at the same instant) is tried again."""
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        if if_match is not None:
            condition["IfMatch"] = if_match
        return retried(lambda: self._put(key, data, condition))

    def _put(self, key: str, data: bytes, condition: dict[str, Any]) -> str:
        with self._translated(key):
            try:
                return self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=data, **condition)[
                    "ETag"
                ]
            except ClientError as error:
                # AWS answers 404 to If-Match on an object that is gone, SeaweedFS 412.
                if "IfMatch" in condition and _code(error) in _ABSENT:
                    raise PreconditionFailed(f"{self.uri}/{key} is gone", file=key) from error
                raise

    def upload(self, key: str, path: Path, moved: Callable[[int], None]) -> None:
        """Uploads a file in parts of 64 MiB; boto3 sends a checksum with each, and aborts the upload where it fails."""
        from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415
        from boto3.s3.transfer import S3Transfer, TransferConfig  # noqa: PLC0415

        # "classic": the CRT client, which boto3 takes on some GPU machines, ignores a client's own endpoint.
        config = TransferConfig(
            multipart_threshold=_PART_BYTES,
            multipart_chunksize=_PART_BYTES,
            max_concurrency=4,
            preferred_transfer_client="classic",
        )
        with self._translated(key):
            try:
                transfer = S3Transfer(self._client, config)  # type: ignore[arg-type]  # the stubs name another Config
                transfer.upload_file(str(path), self._bucket, self._prefix + key, moved)
            except S3UploadFailedError as error:
                cause = error.__context__
                if isinstance(cause, ClientError | BotoCoreError):
                    raise fault_of(cause, f"{self.uri}/{key}") from error
                raise StoreError(str(error)) from error

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the objects below a prefix, page by page."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        with self._translated(prefix):
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    yield Entry(key, item["Size"], item["LastModified"].timestamp())

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects in batches, in the order given; raises for the first that the store did not remove."""
        remaining = iter(keys)
        while batch := list(itertools.islice(remaining, DELETE_BATCH)):
            with self._translated(batch[0]):
                answer = self._client.delete_objects(
                    Bucket=self._bucket,
                    Delete={"Objects": [{"Key": self._prefix + key} for key in batch], "Quiet": True},
                )
            for failure in answer.get("Errors", ()):
                raise StoreError(f"s3://{self._bucket}/{failure.get('Key')} was not removed: {failure.get('Message')}")

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        place = f"{self.uri}/{key}"
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise fault_of(error, place) from error
        except StoreError:
            raise
        except (*_NOT_S3, ValueError) as error:
            raise StoreUnavailable(
                f"{place}: what answers is not as S3 describes it ({type(error).__name__}: {str(error)[:200]}); is the"
                " endpoint an object store's, and nothing before it that answers in its place?"
            ) from error


def _client() -> S3Client:
    try:
        return _made_from_environment()
    except (ValueError, BotoCoreError) as error:
        raise StoreError(
            f"the environment's AWS settings cannot be used ({error}): AWS_ENDPOINT_URL_S3 must be a URL such as "
            "https://minio.example:9000, AWS_PROFILE the name of a profile that there is"
        ) from error


def _made_from_environment() -> S3Client:
    session = get_session()
    # botocore reads AWS_DEFAULT_REGION only, EKS sets AWS_REGION; other stores want any region at all.
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or "us-east-1"
    config = Config(
        region_name=region,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=_CONNECTIONS,
        connect_timeout=10,
        read_timeout=READ_SECONDS,
    )
    return cast("S3Client", session.create_client("s3", config=config))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def fault_of(error: ClientError | BotoCoreError, place: str) -> StoreError:
    """Returns what an answer of the store, or none, means for the object or folder at `place`."""
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(
            f"{place}: no usable credentials ({error}); in an update, name a Secret with AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY in storage.secretRef, or a service account with workload identity; by hand, set"
            " them in the environment, or AWS_PROFILE"
        )
    if isinstance(error, ParamValidationError):
        return StoreError(f"{place} cannot be an S3 address: {error}")
    if isinstance(error, BotoCoreError):
        return StoreUnavailable(f"{place}: the object store cannot be reached ({error})")
    return _of_answer(error, place)


def _of_answer(error: ClientError, place: str) -> StoreError:
    code = _code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    name = place.rpartition("/")[2]
    if code in _ABSENT:
        return NotFound(f"there is no object {place}", file=name)
    if code == "NoSuchBucket":
        return BucketMissing(f"{place}: the bucket does not exist; create it, or correct the address")
    if code == "PreconditionFailed" or status == 412:
        return PreconditionFailed(f"{place} exists already or has changed", file=name)
    if code in _FULL | _DENIED or status in {401, 403}:
        return _refusal(code, place, name)
    if code in _TRANSIENT or (status >= 500 and code not in _UNCONDITIONAL) or status == 429:
        return StoreUnavailable(f"{place}: the store answered {status} {code}", file=name)
    return StoreError(
        f"{place}: the store answered {status} {code}: {error.response.get('Error', {}).get('Message', '')}", file=name
    )


def _refusal(code: str, place: str, name: str) -> StoreError:
    if code in _FULL:
        return NoSpace(f"{place}: the bucket is full ({code}); give it a larger quota", file=name)
    return AccessDenied(
        f"{place}: the store refuses these credentials ({code}); they need to list, read and write there", file=name
    )
