"""Adapters of a live engine: fetched, loaded, held, switched, let go, by the agent beside it and through its port."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from skill_contract.adapters import HELD, HELD_KEY, PREVIOUS_KEY, READY_PATH, REPORT_PATH, WEIGHTS_KEY, AdapterReport
from skill_contract.manifest import Manifest, VersionRef
from skill_store import layout
from skill_store.adapters import agent as module
from skill_store.adapters.agent import Agent, told_in
from skill_store.adapters.bring import Bring
from skill_store.adapters.proxy import application
from skill_store.adapters.sglang import SGLang
from skill_store.adapters.vllm import VLLM
from skill_store.fetch import fetch
from skill_store.repository import Repository
from tests.seaweedfs import Bucket
from tests.store.conftest import Folder, write_model
from tests.store.live_engine import LiveEngine, SGLangDouble, VLLMDouble

ENGINES = {VLLMDouble: VLLM, SGLangDouble: SGLang}


@dataclass
class Pod:
    """An engine, its agent and the port at which both are asked; in `told` the kubelet would mount the ConfigMap."""

    engine: LiveEngine
    session: aiohttp.ClientSession
    folder: Path
    repository: Repository
    refs: list[VersionRef]
    """The base and two versions that were trained from it."""
    url: str = ""
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """The agent's process starts (again): it knows nothing."""
        bring = Bring(self.folder / "weights", self.folder / "adapters")
        engine = ENGINES[type(self.engine)](self.session, self.engine.url)
        self.agent = Agent(engine, told_in(self.folder / "told"), bring, self.engine.model)

    def uri(self, number: int) -> str:
        return layout.version_uri(self.repository.uri, self.refs[number])

    def tell(self, weights: int = 0, previous: int = 0, *, held: bool = False) -> None:
        """Writes the ConfigMap as the kubelet does, by exchanging one link; 0: the pod's own weights."""
        self._turn = getattr(self, "_turn", 0) + 1
        told, whole = self.folder / "told", self.folder / "told" / f"..{self._turn}"
        whole.mkdir(parents=True)
        said = {WEIGHTS_KEY: weights and self.uri(weights), PREVIOUS_KEY: previous and self.uri(previous)}
        said |= {HELD_KEY: HELD} if held else {}
        for key, value in said.items():
            if value:
                (whole / key).write_text(str(value))
        (told / "..new").symlink_to(whole.name)
        (told / "..new").rename(told / "..data")

    async def ask(self, model: str, question: str = "q") -> tuple[int, str]:
        body = {"model": model, "messages": [{"role": "user", "content": question}]}
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            content = await reply.json()
            return reply.status, content["choices"][0]["message"]["content"] if reply.status == 200 else str(content)

    async def said(self) -> str:
        """What answers to the name that people know."""
        status, text = await self.ask("support-llm")
        return text.partition(":")[0] if status == 200 else str(status)

    async def report(self) -> AdapterReport:
        async with self.session.get(f"{self.url}{REPORT_PATH}") as reply:
            return AdapterReport.parse_json(await reply.read())

    async def is_ready(self) -> bool:
        async with self.session.get(f"{self.url}{READY_PATH}") as reply:
            return reply.status == 200


def publish_adapter(
    repository: Repository, folder: Path, parent: VersionRef, says: str, *, rank: int = 16
) -> VersionRef:
    """Publishes a version with an adapter of its parent; what it would say stands in a file of it."""
    write_model(folder, seed=len(says))
    (folder / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": rank, "base_model_name_or_path": parent.version}
    (folder / "adapter/adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter/adapter_model.safetensors").write_bytes(says.encode() * 1000)
    (folder / "adapter/says").write_text(says)
    sequence = repository.manifest(parent).sequence + 1
    return repository.publish(folder, Manifest(files=(), sequence=sequence, parent=parent, skill=says))


@pytest.fixture(params=ENGINES, ids=lambda kind: kind.__name__)
def engine(request: pytest.FixtureRequest) -> Iterator[LiveEngine]:
    with request.param().serve() as running:
        yield running


@pytest.fixture(autouse=True)
def retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)


@pytest.fixture
async def pod(engine: LiveEngine, tmp_path: Path, model: Path) -> AsyncIterator[Pod]:
    """A pod that has fetched the base."""
    repository = Repository(Folder(tmp_path / "repository").uri)
    async with running(engine, tmp_path, repository, model) as started:
        yield started


@contextlib.asynccontextmanager
async def running(engine: LiveEngine, tmp_path: Path, repository: Repository, model: Path) -> AsyncIterator[Pod]:
    base = repository.import_base(model.as_uri())
    refs = [base, *(publish_adapter(repository, tmp_path / says, base, says) for says in ("first", "second"))]
    fetch(tmp_path / "weights", layout.version_uri(repository.uri, base), "")
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        pod = Pod(engine, session, tmp_path, repository, refs)
        runner = web.AppRunner(application(pod.agent, session, engine.url), handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pod.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        yield pod
        await runner.cleanup()


async def test_untold_pod_answers_with_its_own_weights(pod: Pod):
    assert not await pod.is_ready()
    await pod.agent.look()
    assert (await pod.said(), await pod.is_ready()) == ("base", True)
    report = await pod.report()
    assert (report.ready, report.answers, report.base) == (True, "", pod.refs[0].version)
    assert report.fetch.digest == pod.refs[0].digest


async def test_adapter_is_loaded_held_switched_and_the_one_before_let_go(pod: Pod):
    pod.tell(1)
    await pod.agent.look()
    assert await pod.said() == "first"
    pod.tell(2, previous=1, held=True)
    await pod.agent.look()
    assert await pod.said() == "first"
    assert (await pod.ask(pod.refs[2].version))[1].startswith("second")
    held = await pod.report()
    assert (held.ready, held.told.held, held.answers, held.fetch.digest) == (True, True, pod.uri(1), pod.refs[2].digest)
    pod.tell(2, previous=1)
    await pod.agent.look()
    assert await pod.said() == "second"
    assert set(pod.engine.adapters) == {pod.refs[1].version, pod.refs[2].version}
    pod.tell(2)
    await pod.agent.look()
    assert set(pod.engine.adapters) == {pod.refs[2].version}
    assert [path.name for path in (pod.folder / "adapters").iterdir()] == [pod.refs[2].version]
    assert (await pod.report()).ready


async def test_way_back_to_the_one_before_loads_nothing(pod: Pod):
    pod.tell(1)
    await pod.agent.look()
    pod.tell(2, previous=1)
    await pod.agent.look()
    loads = [body for path, body in pod.engine.calls if path == pod.engine.load]
    pod.tell(1)
    await pod.agent.look()
    assert await pod.said() == "first"
    await pod.agent.look()
    assert set(pod.engine.adapters) == {pod.refs[1].version}
    assert [body for path, body in pod.engine.calls if path == pod.engine.load] == loads


async def test_way_back_to_the_own_weights(pod: Pod):
    pod.tell(1, held=True)
    await pod.agent.look()
    assert await pod.said() == "base"
    pod.tell(1)
    await pod.agent.look()
    pod.tell()
    await pod.agent.look()
    assert await pod.said() == "base"
    await pod.agent.look()
    assert not pod.engine.adapters


async def test_answer_that_has_begun_ends_as_it_began(pod: Pod):
    """The switch and the one before's end come in the middle of it: it is not unloaded while somebody is answered."""
    pod.tell(1)
    await pod.agent.look()
    body = {"model": "support-llm", "messages": [{"role": "user", "content": "q"}], "stream": True}
    async with pod.session.post(f"{pod.url}/v1/chat/completions", json=body) as reply:
        assert (await reply.content.readuntil(b"\n\n")) == b"data: first \n\n"
        pod.tell(2)
        await pod.agent.look()
        await pod.agent.look()
        assert await pod.said() == "second"
        assert set(pod.engine.adapters) == {pod.refs[1].version, pod.refs[2].version}
        pod.engine.gate.set()
        assert (await reply.read()).startswith(b"data: first: q")
    async with asyncio.timeout(10):
        while pod.refs[1].version in pod.engine.adapters:
            await pod.agent.look()
    assert await pod.said() == "second"


async def test_client_that_goes_away_ends_the_engine_s_work(pod: Pod):
    pod.tell(1)
    await pod.agent.look()
    body = {"model": "support-llm", "messages": [{"role": "user", "content": "q"}], "stream": True}
    async with pod.session.post(f"{pod.url}/v1/chat/completions", json=body) as reply:
        await reply.content.readuntil(b"\n\n")
    async with asyncio.timeout(10):  # what counts as being asked is over
        pod.tell(2)
        while pod.refs[1].version in pod.engine.adapters:
            await pod.agent.look()


async def test_engine_that_has_started_anew_gets_its_adapters_again(tmp_path: Path, model: Path):
    engine = VLLMDouble()
    with contextlib.ExitStack() as life:
        life.enter_context(engine.serve())
        repository = Repository(Folder(tmp_path / "repository").uri)
        async with running(engine, tmp_path, repository, model) as pod:
            pod.tell(1)
            await pod.agent.look()
            life.close()
            await pod.agent.look()
            assert (await pod.is_ready(), await pod.said(), (await pod.report()).ready) == (False, "503", False)
            with engine.serve():
                await pod.agent.look()
                assert (await pod.said(), await pod.is_ready()) == ("first", True)


async def test_agent_that_has_started_anew_finds_everything_as_it_was(pod: Pod):
    pod.tell(2, previous=1)
    await pod.agent.look()
    loads = len(pod.engine.calls)
    pod.start()
    await pod.agent.look()
    assert (pod.agent.is_ready, pod.agent.report().fetch.digest) == (True, pod.refs[2].digest)
    assert not [path for path, _ in pod.engine.calls[loads:] if path == pod.engine.load]


async def test_pod_is_not_ready_before_it_has_what_it_was_told(pod: Pod):
    """A pod that starts later: it must not answer with its own weights meanwhile."""
    pod.tell(1)
    pod.engine.max_rank = 8
    await pod.agent.look()
    assert (await pod.is_ready(), await pod.said()) == (False, "503")
    pod.engine.max_rank = 64
    await pod.agent.look()
    assert (await pod.is_ready(), await pod.said()) == (True, "first")


async def test_adapter_that_the_engine_refuses_is_said_and_changes_nothing(pod: Pod):
    pod.tell(1)
    await pod.agent.look()
    pod.engine.max_rank = 8
    pod.tell(2, previous=1, held=True)
    await pod.agent.look()
    report = await pod.report()
    assert (report.ready, report.fetch.outcome, report.fetch.reason) == (False, "Failed", "AdapterRefused")
    assert "rank 16" in report.fetch.message
    assert (await pod.said(), await pod.is_ready()) == ("first", True)


async def test_wrong_bytes_never_reach_the_engine(pod: Pod):
    place = pod.folder / "repository" / layout.version_folder(pod.refs[1].version) / "adapter/adapter_model.safetensors"
    place.write_bytes(b"forged" + place.read_bytes()[6:])
    pod.tell(1, held=True)
    await pod.agent.look()
    report = await pod.report()
    assert (report.fetch.reason, report.fetch.file) == ("DigestMismatch", "adapter_model.safetensors")
    assert not [path for path, _ in pod.engine.calls if path == pod.engine.load]
    assert await pod.said() == "base"


async def test_version_without_an_adapter_is_refused_with_the_way_out(pod: Pod, tmp_path: Path):
    plain = pod.repository.publish(
        write_model(tmp_path / "plain", seed=9), Manifest(files=(), sequence=1, parent=pod.refs[0])
    )
    pod.refs.append(plain)
    pod.tell(3)
    await pod.agent.look()
    report = await pod.report()
    assert report.fetch.reason == "NotFound"
    assert "publish Adapter" in report.fetch.message


async def test_adapter_for_the_pod_s_older_weights_is_the_one_that_is_loaded(pod: Pod, tmp_path: Path):
    """A grandchild of the pod's weights: it brings an adapter for its parent, and one for the base."""
    folder = tmp_path / "third"
    older = folder / "adapters" / pod.refs[0].version
    older.mkdir(parents=True)
    (older / "adapter_config.json").write_text(json.dumps({"r": 32}))
    (older / "says").write_text("third, from the base")
    pod.refs.append(publish_adapter(pod.repository, folder, pod.refs[1], "third, from the first"))
    pod.tell(3)
    await pod.agent.look()
    assert await pod.said() == "third, from the base"
    assert not (pod.folder / "adapters" / pod.refs[3].version / "adapter_model.safetensors").exists()


async def test_adapter_of_other_weights_is_refused(pod: Pod, tmp_path: Path):
    pod.refs.append(publish_adapter(pod.repository, tmp_path / "third", pod.refs[1], "third"))
    pod.tell(3)
    await pod.agent.look()
    report = await pod.report()
    assert report.fetch.reason == "BaseMismatch"
    assert pod.refs[1].version in report.fetch.message
    assert pod.refs[0].version in report.fetch.message
    assert not pod.engine.adapters


async def test_pod_whose_own_weights_are_the_version_needs_no_adapter(pod: Pod):
    """It has fetched the head after that had moved."""
    fetch(pod.folder / "weights", pod.uri(1), "")
    pod.tell(1)
    await pod.agent.look()
    report = await pod.report()
    assert (await pod.said(), report.ready, report.fetch.digest) == ("base", True, pod.refs[1].digest)
    assert not pod.engine.adapters


async def test_adapters_of_the_user_s_own_are_left_alone(pod: Pod):
    pod.engine.adapters["poetry"] = pod.folder / "first" / "adapter"
    pod.tell(1)
    await pod.agent.look()
    pod.tell()
    await pod.agent.look()
    await pod.agent.look()
    assert set(pod.engine.adapters) == {"poetry"}


@pytest.mark.parametrize(
    "path",
    ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/load_lora_adapter", "/update_weights_from_disk",
     "/v1/../load_lora_adapter",
     "/v1/models/%2e%2e/load_lora_adapter", "/%76%31/load_lora_adapter", "/v1/load_lora_adapter/",
     "//v1/load_lora_adapter"],
)  # fmt: skip
async def test_only_questions_are_passed_on(pod: Pod, path: str):
    await pod.agent.look()
    before = len(pod.engine.calls)
    async with pod.session.post(f"{pod.url}{path}", json={"lora_name": "x", "lora_path": "/x"}) as reply:
        assert reply.status == 404
    assert len(pod.engine.calls) == before


async def test_what_is_no_question_is_passed_on_as_it_is(pod: Pod):
    await pod.agent.look()
    async with pod.session.get(f"{pod.url}/v1/models") as reply:
        assert (await reply.json())["data"][0]["id"] == "support-llm"
    async with pod.session.get(f"{pod.url}/health") as reply:
        assert reply.status == 200


async def test_engine_that_does_not_let_adapters_be_loaded_is_said_with_the_setting():
    with VLLMDouble().serve() as engine:
        engine.posted = lambda path, body: (404, {"detail": "Not Found"})  # type: ignore[method-assign]
        async with aiohttp.ClientSession() as session:
            with pytest.raises(module.StoreError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
                await VLLM(session, engine.url).load("000001-aaaaaaaaaaaa", "/adapters/x")


@pytest.mark.store
async def test_adapter_comes_from_an_object_store_and_forged_bytes_do_not(tmp_path: Path, model: Path, s3: Bucket):
    with VLLMDouble().serve() as engine:
        async with running(engine, tmp_path, Repository(s3.uri), model) as pod:
            pod.tell(1)
            await pod.agent.look()
            assert await pod.said() == "first"
            key = f"{layout.version_folder(pod.refs[2].version)}adapter/adapter_model.safetensors"
            s3.write(key, b"forged" + s3.read(key)[6:])
            pod.tell(2, previous=1, held=True)
            await pod.agent.look()
            report = await pod.report()
            assert (report.ready, report.fetch.reason) == (False, "DigestMismatch")
            assert set(engine.adapters) == {pod.refs[1].version}
