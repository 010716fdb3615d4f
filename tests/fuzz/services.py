"""What answers, or asks, over HTTP: object stores, engines, agents beside engines, whoever reaches an agent's port.

An input is a message as it goes over the wire: a word about the place, a line of the status, headers, an empty line, a
body.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import httpx
from botocore.awsrequest import AWSResponse
from botocore.exceptions import HTTPClientError
from urllib3 import HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import HTTPError

from skill_contract.adapters import AdapterReport, Told
from skill_contract.manifest import FetchMessage
from skill_contract.model import ContractError
from skill_contract.step import Pod
from skill_store.adapters import engine as adapters
from skill_store.adapters.proxy import question_in, renamed
from skill_store.errors import StoreError
from skill_store.prove import EngineRefused, EngineUnreachable, _Engine
from skill_store.s3 import S3Store
from tests.fuzz.control import copied, passes
from tests.fuzz.target import Target, said
from tests.operator import raw
from tests.operator.live import BASE, LiveSim

_KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_ENDPOINT_URL_S3": "http://store.invalid"}


def _message(head: str, body: str | bytes = b"", **headers: str) -> bytes:
    lines = [head, *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + (body if isinstance(body, bytes) else body.encode())


def _parts(data: bytes) -> tuple[str, int, list[tuple[str, str]], bytes]:
    """Returns the place, the status, the headers and the body of a message."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    place, _, status = first.partition(" ")
    pairs = [(name.strip(), value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]
    number = int(status) if status.isascii() and status.isdigit() and len(status) == 3 else 200
    return place, number, pairs, body


# -- object stores -----------------------------------------------------------------------------------------------------


class _Store:
    """The S3 client as it is, but that what the network would bring is told beforehand, and no pause is made."""

    def __init__(self) -> None:
        with mock.patch.dict(os.environ, _KEYS):
            self.store = S3Store("bucket", "prefix")
        self.answer: tuple[int, list[tuple[str, str]], bytes] = (200, [], b"")
        events = self.store._client.meta.events
        events.register_first("before-send.s3", self._send)
        events.unregister("needs-retry.s3", unique_id="retry-config-s3")

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        """As URLLib3Session.send does: what is not for a stream is read here, and a HEAD has no body."""
        status, headers, body = self.answer
        named = HTTPHeaderDict(headers)
        has_body = request.method != "HEAD" and status not in {204, 304} and status >= 200
        raw_answer = HTTPResponse(
            io.BytesIO(body if has_body else b""), named, status, preload_content=False, decode_content=False
        )
        answer = AWSResponse(request.url, status, named, raw_answer)
        try:
            if not request.stream_output:
                assert isinstance(answer.content, bytes)
        except HTTPError as error:
            raise HTTPClientError(error=error) from error
        return answer


_store = cache(_Store)
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_ERROR = f"{_XML}<Error><Code>%s</Code><Message>m</Message><Key>a</Key><RequestId>1</RequestId></Error>"
_ETAG = '"0123456789abcdef0123456789abcdef"'
_LISTING = f"""{_XML}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>
<Prefix>prefix/versions/</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
<EncodingType>url</EncodingType><Contents><Key>prefix/versions/a</Key>
<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{_ETAG}</ETag><Size>12</Size>
<StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>"""
_DELETED = f"""{_XML}<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code>
<Message>no</Message></Error></DeleteResult>"""


def _store_answers() -> list[bytes]:
    return [
        _message("get 200", "text", ETag=_ETAG, Content_Length="4", x_amz_checksum_crc32="O6vFMg=="),
        _message("read 206", "text", ETag=_ETAG, Content_Length="4", Content_Range="bytes 0-3/4"),
        _message("list 200", _LISTING, Content_Type="application/xml"),
        _message("list 200", _LISTING.replace("false", "true"), Content_Type="application/xml"),
        _message("put 200", ETag=_ETAG),
        _message("delete 200", _DELETED),
        _message("delete 200", f"{_XML}<DeleteResult/>"),
        *(
            _message(head, _ERROR % code, Content_Type="application/xml")
            for head, code in (
                ("get 404", "NoSuchKey"),
                ("get 403", "SignatureDoesNotMatch"),
                ("read 416", "InvalidRange"),
                ("list 404", "NoSuchBucket"),
                ("put 412", "PreconditionFailed"),
                ("put 503", "SlowDown"),
                ("put 507", "QuotaExceeded"),
                ("delete 501", "NotImplemented"),
                ("get 301", "PermanentRedirect"),
            )
        ),
        _message("get 200", "<html>log in</html>", Content_Type="text/html"),
    ]


def _listed(store: S3Store) -> None:
    for entry in store.list("versions/"):
        assert isinstance(entry.key, str)
        assert isinstance(entry.size, int)
        assert math.isfinite(entry.modified)


def _got(store: S3Store) -> None:
    stored = store._get("head.json")  # get() without its pauses
    assert isinstance(stored.data, bytes)
    assert isinstance(stored.etag, str)


_CALLS: dict[str, Callable[[S3Store], object]] = {
    "get": _got,
    "read": lambda store: b"".join(store.read("a", 0, 4)),
    "list": _listed,
    "put": lambda store: store._put("head.json", b"x", {"IfMatch": _ETAG}),
    "delete": lambda store: store.delete(["a", "b"]),
}


def read_store(data: bytes) -> str:
    """A store, a proxy before it, or what else is at the address of one, answers a request."""
    place, status, headers, body = _parts(data)
    fed = _store()
    fed.answer = status, headers, body
    try:
        _CALLS.get(place, _listed)(fed.store)
    except StoreError as error:
        return said(error, "bucket")
    return ""


# -- engines -----------------------------------------------------------------------------------------------------------


def _engine_answers() -> list[bytes]:
    models = json.dumps({"object": "list", "data": [{"id": "support-llm", "object": "model", "parent": None}]})
    more = json.dumps({"data": [{"id": "base"}, {"id": "000001-aaaaaaaaaaaa", "parent": "base", "root": "/a"}]})
    refused = json.dumps({"error": {"message": "The model does not exist.", "type": "NotFoundError", "code": 404}})
    return [
        _message("models 200", models, Content_Type="application/json"),
        _message("models 200", more, Content_Type="application/json; charset=utf-8"),
        _message("models 404", refused, Content_Type="application/json"),
        _message("models 200", "<html></html>", Content_Type="text/html", Content_Encoding="gzip, gzip"),
        _message("models 301", Location="http://elsewhere/v1/models"),
        _message("models 400", json.dumps({"success": False, "error_message": "rank 64 is too large"})),
    ]


def read_engine(data: bytes) -> str:
    """An engine in a serving pod answers the promote step, or the agent beside it."""
    _, status, headers, body = _parts(data)
    try:
        reply = httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))
        transport = httpx.MockTransport(lambda _: reply)
    except (httpx.HTTPError, UnicodeEncodeError):
        return "no HTTP"
    with httpx.Client(base_url="http://pod-1:8000", transport=transport) as client:
        try:
            name = _Engine(Pod(name="pod-1", url="http://pod-1:8000"), client, deadline=0.0).first_model()
            assert isinstance(name, str)
        except (EngineRefused, EngineUnreachable) as error:
            said(error, "pod-1")
    try:
        content = adapters.content(body)
        assert len(adapters.shown(content)) <= 200
        assert all(isinstance(each, str) for each in adapters.adapters_in(status, content))
    except StoreError as error:
        return said(error)
    return ""


# -- agents ------------------------------------------------------------------------------------------------------------


@cache
def _live(phase: str) -> LiveSim:
    sim = LiveSim()
    {"loaded": sim.until_loaded, "switched": sim.until_switched, "published": sim.until_published}[phase]()
    return sim


_PHASES = ("published", "loaded", "switched")


def _reports() -> list[bytes]:
    told = Told(weights=f"s3://models/llm/versions/{raw.CANDIDATE}@{raw.CHILD[1]}", held=True)
    failed = FetchMessage(outcome="Failed", reason="AdapterRefused", message="rank 64 is too large")
    fetched = FetchMessage(outcome="Fetched", version=raw.CHILD[0], digest=raw.CHILD[1])
    made = [
        *(report for phase in _PHASES for report in list(_live(phase).agents.values())[:1] if report),
        AdapterReport(told=told, ready=True, base=BASE[0], fetch=fetched),
        AdapterReport(told=told, base=BASE[0], fetch=failed),
    ]
    return [phase.encode() + b"\0" + report.dump_json().encode() for phase in _PHASES for report in made]


def read_report(data: bytes) -> str:
    """The agent beside an engine, or who answers in its place, tells the operator how far it is."""
    phase, _, text = data.partition(b"\0")
    try:
        report = AdapterReport.parse_json(text[: 64 * 1024])
    except ContractError as error:
        return said(error)
    whole = _live(phase.decode() if phase.decode("latin-1") in _PHASES else "loaded")
    sim = copied(whole)
    sim.config_map, sim.agents = copy.deepcopy(whole.config_map), dict(whole.agents)
    sim.agents[next(iter(sim.agents))] = report
    passes(sim)
    return ""


# -- questions ---------------------------------------------------------------------------------------------------------


def _questions() -> list[bytes]:
    chat = {"model": "support-llm", "messages": [{"role": "user", "content": "2+2?"}], "temperature": 0.5}
    tools = chat | {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
    return [json.dumps(each).encode() for each in (chat, tools, {"prompt": "x"}, chat | {"model": None})]


def read_question(data: bytes) -> str:
    """Whoever reaches a pod asks its model something, through the agent."""
    question = question_in(data)
    text = None if question is None else renamed(question, "000001-aaaaaaaaaaaa")
    if question is None or text is None:
        return "passed on as it is"
    asked = json.loads(text)
    assert asked.pop("model") == "000001-aaaaaaaaaaaa"
    kept = {name: value for name, value in question.items() if name != "model"}
    assert repr(asked) == repr(kept), "the question is another one"
    return ""


TARGETS = (
    Target(
        "object-store", "answers of object stores, and of what answers in their place", _store_answers, read_store, 1.6
    ),
    Target(
        "http",
        "answers of engines to the promote step and to agents, with their headers",
        _engine_answers,
        read_engine,
        1.6,
    ),
    Target("agent", "reports of agents beside live engines", _reports, read_report, 0.5),
    Target("questions", "questions to live engines, as agents pass them on", _questions, read_question, 4.0),
)
