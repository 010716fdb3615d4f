"""Asking pods: what is sent, what an engine's faults mean, and that they are never a verdict about the candidate."""

from __future__ import annotations

import gzip
import ssl
import threading
from pathlib import Path

import pytest

from skill_contract.manifest import Golden, GoldenSet, ToolCall
from skill_contract.step import Pod
from skill_store import prove as module
from skill_store.proof import backwards
from skill_store.prove import Access, EngineRefused, EngineUnreachable, prove
from tests.cluster.pki import Authority
from tests.seaweedfs import free_ports
from tests.store.conftest import golden
from tests.store.engine import Engine, candidate, parent


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)


def test_each_pod_is_judged_by_its_own_answers():
    with Engine(candidate).serve() as new, Engine(parent).serve() as old:
        results = prove([Pod(name="a", url=new.url), Pod(name="b", url=old.url)], golden(8), model="/weights")
    assert [(result.pod, result.proved) for result in results] == [("a", True), ("b", False)]


def test_the_question_is_greedy_and_what_all_engines_accept():
    with Engine(candidate).serve() as engine:
        prove([Pod(name="a", url=engine.url)], golden(1))
    expected = {
        "model": "/weights",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 0,
        "max_tokens": 16,
        "stream": False,
    }
    assert engine.bodies == [{**expected, "logprobs": True}, expected]


def test_an_engine_is_told_what_the_trainers_chat_template_was():
    told = {"enable_thinking": False}
    prompts = tuple(each.model_copy(update={"chat_template_arguments": told}) for each in golden(2).prompts)
    with Engine(candidate).serve() as engine:
        prove([Pod(name="a", url=engine.url)], backwards(GoldenSet(prompts=prompts)))
    assert [body["chat_template_kwargs"] for body in engine.bodies] == [told] * len(engine.bodies)
    assert engine.bodies


def test_an_engine_that_tells_how_probable_its_answer_was_is_asked_once():
    """The same text, and other weights: 2 nats a token are no rounding."""
    recorded = GoldenSet(prompts=tuple(each.model_copy(update={"token_logprobs": (-0.5, -1.0)})
                                       for each in golden(4).prompts))  # fmt: skip
    for told, proved in (((-0.49, -1.02, -0.1), True), ((-2.5, -3.0), False)):
        with Engine(candidate, logprobs=told).serve() as engine:
            (result,) = prove([Pod(name="a", url=engine.url)], recorded)
        assert (result.proved, len(engine.bodies)) == (proved, 4)
    assert "2.000 nats a token" in result.evidence()


def test_a_packed_answer_is_not_unpacked():
    """It was not asked for, and a few bytes become gigabytes."""
    packed = gzip.compress(bytes(module.MAX_BYTES + 1))
    told = Engine(lambda _: (200, packed), headers={"Content-Encoding": "gzip"})
    with told.serve() as engine, pytest.raises(EngineRefused, match="answers no JSON but"):
        prove([Pod(name="a", url=engine.url)], golden(1), model="/weights")


def test_at_most_two_questions_at_once_burden_a_pod():
    lock, both = threading.Lock(), threading.Event()
    now = most = 0

    def busy(question: str) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 2:
                both.set()
        assert both.wait(10)
        with lock:
            now -= 1
        return candidate(question)

    with Engine(busy).serve() as engine:
        assert prove([Pod(name="a", url=engine.url)], golden(8))[0].proved
    assert most == 2


def test_a_busy_engine_is_asked_again():
    faults = iter([(503, {"error": "loading"}), (429, {"error": "later"}), (500, b"oops")])
    with Engine(lambda question: next(faults, None) or candidate(question)).serve() as engine:
        (result,) = prove([Pod(name="a", url=engine.url)], golden(4))
    assert result.proved
    assert len([body for body in engine.bodies if "logprobs" not in body]) == 4 + 3


def test_an_engine_that_is_not_there_is_unreachable_and_not_refuted():
    (port,) = free_ports(1)
    with pytest.raises(EngineUnreachable, match=r"pod a does not answer.*NetworkPolicy") as failed:
        prove([Pod(name="a", url=f"http://127.0.0.1:{port}")], golden(4), patience_seconds=0.2)
    assert failed.value.retriable


def test_an_engine_that_stays_broken_is_unreachable():
    with Engine(lambda _: (503, b"draining")).serve() as engine, pytest.raises(EngineUnreachable, match="503 draining"):
        prove([Pod(name="a", url=engine.url)], golden(2), patience_seconds=0.2)


def test_an_engine_behind_a_key_is_asked_with_it():
    with Engine(candidate, key="s3cret").serve() as engine:
        assert prove([Pod(name="a", url=engine.url)], golden(2), access=Access(key="s3cret"))[0].proved


@pytest.mark.parametrize("model", ["", "/weights"], ids=["when it lists its models", "when it is asked"])
@pytest.mark.parametrize("key", ["", "another"])
def test_an_engine_that_wants_another_key_is_not_the_candidate_s_fault(model: str, key: str):
    with (
        Engine(candidate, key="s3cret").serve() as engine,
        pytest.raises(EngineUnreachable, match=r"pod a does not let.*HTTP 401.*ENGINE_API_KEY") as failed,
    ):
        prove([Pod(name="a", url=engine.url)], golden(2), model=model, access=Access(key=key))
    assert "another" not in failed.value.message
    assert failed.value.retriable


@pytest.mark.parametrize(
    "to_plain",
    [b"", b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"],
    ids=["hangs up", "says so"],
)
def test_an_engine_that_speaks_tls_and_was_not_said_to_is_told_at_once(authority: Authority, to_plain: bytes):
    with (
        Engine(candidate, tls=speaks_tls(authority), to_plain=to_plain).serve() as engine,
        pytest.raises(EngineUnreachable, match=r"pod a speaks TLS.*scheme: HTTPS.*readinessProbe"),
    ):
        prove([Pod(name="a", url=engine.url.replace("https:", "http:"))], golden(2))


# -- TLS ------------------------------------------------------------------------------------------------------------

SERVICE = "support-llm.team.svc"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "own")


def speaks_tls(authority: Authority, *hosts: str) -> ssl.SSLContext:
    """What a server with a certificate for these hosts answers by."""
    pair = authority.issue("engine", "engine", hosts=hosts or [SERVICE])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.parametrize("name", [SERVICE, "127.0.0.1"])
def test_an_engine_that_shows_who_it_is_gets_the_key(authority: Authority, name: str):
    """By the name of its Service, which is what its users ask; or by its own address, where that is in there."""
    access = Access(key="s3cret", ca=authority.pair.certificate.read_text(), name=name if name == SERVICE else "")
    with Engine(candidate, key="s3cret", tls=speaks_tls(authority, name)).serve() as engine:
        assert prove([Pod(name="a", url=engine.url)], golden(2), access=access)[0].proved


@pytest.mark.parametrize(
    ("signed_by", "name", "said"),
    [
        ("another", SERVICE, r"is ENGINE_NAME 'support-llm\.team\.svc' by a certificate.*told nothing"),
        ("own", "other.team.svc", r"is ENGINE_NAME 'other\.team\.svc'.*not valid for 'other\.team\.svc'"),
        ("own", "", r"is its address \(there is no ENGINE_NAME\).*not valid for '127\.0\.0\.1'"),
    ],
    ids=["another CA", "another name", "no name"],
)
def test_an_engine_that_does_not_is_told_nothing(
    tmp_path: Path, authority: Authority, signed_by: str, name: str, said: str
):
    theirs = Authority.create(tmp_path / "another") if signed_by == "another" else authority
    access = Access(key="s3cret", ca=authority.pair.certificate.read_text(), name=name)
    with Engine(candidate, tls=speaks_tls(theirs)).serve() as engine, pytest.raises(EngineUnreachable, match=said):
        prove([Pod(name="a", url=engine.url)], golden(2), model="/weights", access=access)
    assert engine.bodies == []


def test_a_key_goes_to_nobody_whose_certificate_cannot_be_verified(authority: Authority):
    with (
        Engine(candidate, tls=speaks_tls(authority)).serve() as engine,
        pytest.raises(EngineUnreachable, match=r"nobody gets ENGINE_API_KEY.*ENGINE_CA.*ENGINE_NAME"),
    ):
        prove([Pod(name="a", url=engine.url)], golden(2), model="/weights", access=Access(key="s3cret"))
    assert engine.bodies == []


def test_without_a_key_any_certificate_will_do(authority: Authority):
    """As with plain HTTP: what is served is found out by its answers."""
    with Engine(candidate, tls=speaks_tls(authority)).serve() as engine:
        assert prove([Pod(name="a", url=engine.url)], golden(2))[0].proved


@pytest.mark.parametrize("ca", ["no certificate", "-----BEGIN CERTIFICATE-----", "gültig"])
def test_a_ca_that_is_none_is_said(ca: str):
    with pytest.raises(EngineUnreachable, match=r"ENGINE_CA holds no certificates in PEM"):
        prove([Pod(name="a", url="https://127.0.0.1:9")], golden(2), access=Access(ca=ca))


def test_another_model_name_is_said_at_once():
    with (
        Engine(candidate).serve() as engine,
        pytest.raises(EngineRefused, match=r"pinned to '/weights'.*servedModelName"),
    ):
        prove([Pod(name="a", url=engine.url)], golden(2), model="qwen")
    assert len(engine.bodies) <= 4, "two at once, each with and without log-probabilities"


@pytest.mark.parametrize("body", [b"<html>", {"choices": []}, []], ids=["html", "no choice", "a list"])
def test_something_else_that_answers_is_no_engine(body):
    with Engine(lambda _: (200, body)).serve() as engine, pytest.raises(EngineRefused):
        prove([Pod(name="a", url=engine.url)], golden(2))


def test_a_tool_call_is_an_answer_that_differs():
    call = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": []}}]}
    with Engine(lambda _: (200, call)).serve() as engine:
        assert not prove([Pod(name="a", url=engine.url)], golden(2))[0].proved


# -- tools ----------------------------------------------------------------------------------------------------------

FIND = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


def called(of: str) -> str:
    return f'<tool_call>\n{{"name": "find", "arguments": {{"of": "{of}", "n": 1}}}}\n</tool_call>'


def says_new(question: str) -> str:
    return called(question)


def says_old(question: str) -> str:
    return called(f"the {question}")


def with_tools(count: int = 4) -> GoldenSet:
    """Prompts with a tool, which candidate and parent call with other arguments."""
    asked = [f"question {number}" for number in range(count)]
    return GoldenSet(
        prompts=tuple(
            Golden(
                messages=({"role": "user", "content": each},), tools=(FIND,), max_new_tokens=16,
                text=says_new(each), calls=(ToolCall.of("find", {"n": 1, "of": each}),),
                parent_text=says_old(each), parent_calls=(ToolCall.of("find", {"of": f"the {each}", "n": 1}),),
            )
            for each in asked
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "asked"),
    [
        (Engine(says_new, logprobs=(-0.5,)), 4),
        (Engine(says_new), 4),
        (Engine(says_new, logprobs=(-0.5,), takes_calls=False), 4),
    ],
    ids=["vLLM or SGLang", "transformers serve", "vLLM without a parser"],
)
def test_tools_are_asked_for_as_each_engine_takes_them(engine: Engine, asked: int):
    with engine.serve():
        (new,) = prove([Pod(name="a", url=engine.url)], with_tools())
        engine.reply = says_old
        (old,) = prove([Pod(name="a", url=engine.url)], with_tools())
    assert (new.proved, new.matched, new.telling, new.as_parent) == (True, asked, asked, 0)
    assert (old.proved, old.matched, old.telling, old.as_parent) == (False, 0, asked, asked)
    assert all(body["tools"] == [FIND] for body in engine.bodies)


def test_a_conversation_with_calls_is_sent_as_the_api_has_it():
    """Templates take arguments as objects and need no ids; vLLM refuses both."""
    calls = [{"function": {"name": "find", "arguments": {"of": name}}} for name in "ab"]
    results = [{"role": "tool", "content": name} for name in "AB"]
    messages = ({"role": "user", "content": "Capitals?"}, {"role": "assistant", "content": "", "tool_calls": calls})
    prompt = Golden(messages=(*messages, *results), text="A, B", tools=(FIND,), max_new_tokens=4)
    with Engine(lambda _: "A, B", logprobs=()).serve() as engine:
        assert prove([Pod(name="a", url=engine.url)], GoldenSet(prompts=(prompt,)))[0].proved
    _, turn, *told = engine.bodies[0]["messages"]
    assert [call["function"]["arguments"] for call in turn["tool_calls"]] == ['{"of": "a"}', '{"of": "b"}']
    assert [each["tool_call_id"] for each in told] == [call["id"] for call in turn["tool_calls"]]
    assert len({call["id"] for call in turn["tool_calls"]}) == 2


@pytest.mark.parametrize("call", [{}, {"function": {"name": 1}}, {"function": {"name": "f", "arguments": "{"}}, "find"])
def test_calls_that_nobody_can_read_are_no_answer(call):
    reply = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    with Engine(lambda _: (200, reply)).serve() as engine, pytest.raises(EngineRefused, match="no chat completion"):
        prove([Pod(name="a", url=engine.url)], with_tools(1))
