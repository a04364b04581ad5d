"""Several backends behind one manager, over real sockets: who gets work, and who is trusted."""

import asyncio
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError, create_default_context
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from src.app import create_app
from src.models.errors import BackendUnavailable
from src.pool import BadBackend
from src.settings import Settings
from src.simulator.config import SimulatorConfig
from src.simulator.serve import Simulator
from src.utils.localai_client import LocalAIClient
from src.utils.retry import RetryPolicy

from .between import between
from .certificates import Authority, secret, server_side
from .managing import FAST, Control, timing
from .serving import RunningServer
from .utils.raw_server import free_port, raw_server, reply

PATIENCE_S = 20.0


@pytest.fixture(autouse=True)
async def in_time() -> AsyncGenerator[None]:
    async with asyncio.timeout(40):
        yield


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings and no proxies in the environment, no files in the folder."""
    for name in os.environ:
        if name.startswith(("IM_", "LOCALAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Manager:
    """A running manager, and how to call it."""

    url: str
    http: httpx2.AsyncClient

    async def until(self, path: str, when: Callable[[Any], bool]) -> Any:
        """Ask until the answer is as wished."""
        while not when(answer := (await self.http.get(path)).json()):
            pass
        return answer

    async def until_up(self, *names: str) -> None:
        await self.until(
            "/health", lambda now: {n for n, b in now["backends"].items() if b["up"]} == {*names}
        )

    def say(self, words: str, **fields: object) -> "asyncio.Task[httpx2.Response]":
        """Have a caller ask for a text, and wait for it."""
        body = {"prompt": f"repeat: {words}", "model": "sim-chat", **fields}
        return asyncio.create_task(self.http.post("/mcp/txt2txt", json=body))


@asynccontextmanager
async def manager(
    *backends: Mapping[str, object], log: Path | None = None, recheck_s: float = 30.0
) -> AsyncGenerator[Manager]:
    settings = Settings.model_validate(
        {
            "backends": backends,
            "log_file": log,
            "log_level": "warning",
            "log_console": False,
            "grace_s": 0,
        }
    )
    app = create_app(
        settings, timing=timing(recheck_s=(recheck_s,)), retry=RetryPolicy(base_s=0.01, cap_s=0.05)
    )
    server = RunningServer(app)
    # In threads: what stands between the manager and its backends lives in this loop.
    await asyncio.to_thread(server.__enter__)
    try:
        async with httpx2.AsyncClient(
            base_url=server.url, timeout=PATIENCE_S, trust_env=False
        ) as http:
            yield Manager(server.url, http)
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


def text(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    said: str = answer.json()["text"]
    return said


async def each_has_one(*sims: Simulator) -> None:
    """See that every backend works on a job, and let them go on."""
    for sim in sims:
        assert len(await Control(sim)("wait", model="sim-chat")) == 1
    for sim in sims:
        await Control(sim)("release")


# Work


async def test_jobs_for_one_model_spread_over_the_backends() -> None:
    with Simulator(FAST) as first, Simulator(FAST) as second:
        for sim in (first, second):
            await Control(sim)("hold")
        async with manager({"url": first.url}, {"url": second.url}) as m:
            await m.until_up(f"127.0.0.1-{first.port}", f"127.0.0.1-{second.port}")
            calls = [m.say(word) for word in ("one", "two")]
            await each_has_one(first, second)

            assert [text(await call) for call in calls] == ["one", "two"]


async def test_callers_of_a_backend_that_dies_only_wait_and_every_job_is_finished_once() -> None:
    sims = [Simulator(FAST) for _ in range(3)]
    words = [f"word{number}" for number in range(9)]
    for sim in sims:
        sim.start()
        await Control(sim)("hold")
    try:
        backends = [{"name": f"gpu{n}", "url": sim.url} for n, sim in enumerate(sims)]
        async with manager(*backends, recheck_s=0.01) as m:
            await m.until_up("gpu0", "gpu1", "gpu2")
            calls = [m.say(word) for word in words]
            for sim in sims:
                await Control(sim)("wait", model="sim-chat")
            await asyncio.to_thread(sims[0].stop)
            for sim in sims[1:]:
                await Control(sim)("release")

            assert [text(await call) for call in calls] == words

            await m.until_up("gpu1", "gpu2")
            ids = [(await call).json()["job_id"] for call in calls]
            assert (await m.http.get("/ready")).status_code == 200
        await asyncio.to_thread(sims[0].start)  # its journal has stayed
        records = [record for sim in sims for record in await Control(sim)("requests")]
        done = [r for r in records if r.ending == "completed"]
        finished = Counter(r.correlation_id.removeprefix("chatcmpl-") for r in done)
        assert {job_id: finished[job_id] for job_id in ids} == dict.fromkeys(ids, 1)
        assert "stopped" in {record.ending for record in records}
    finally:
        for sim in sims:
            sim.stop()


async def test_a_backend_that_comes_back_is_used_again() -> None:
    with Simulator(FAST) as first, Simulator(FAST) as second:
        async with manager(
            {"name": "first", "url": first.url},
            {"name": "second", "url": second.url},
            recheck_s=0.01,
        ) as m:
            await m.until_up("first", "second")
            await asyncio.to_thread(first.stop)
            assert text(await m.say("alone")) == "alone"
            await asyncio.to_thread(first.start)
            await m.until_up("first", "second")
            for sim in (first, second):
                await Control(sim)("hold")
                await Control(sim)("forget_requests")

            calls = [m.say(word) for word in ("one", "two")]
            await each_has_one(first, second)

            assert [text(await call) for call in calls] == ["one", "two"]


async def test_when_all_are_away_jobs_wait_ready_says_why_and_the_first_to_return_serves() -> None:
    with Simulator(FAST) as first, Simulator(FAST) as second:
        async with manager(
            {"name": "first", "url": first.url},
            {"name": "second", "url": second.url},
            recheck_s=0.01,
        ) as m:
            await m.until_up("first", "second")
            for sim in (first, second):
                await asyncio.to_thread(sim.stop)
            call = m.say("patience")
            unready = await m.until("/ready", lambda answer: len(answer["reasons"]) == 2)
            health = (await m.http.get("/health")).json()
            assert not call.done()
            await asyncio.to_thread(second.start)

            assert text(await call) == "patience"

            away = "cannot be reached; check that it runs, and that its URL is right"
            assert unready == {
                "ready": False,
                "reasons": [
                    f"first: backend first at {first.url} {away}",
                    f"second: backend second at {second.url} {away}",
                ],
            }
            assert health["status"] == "degraded"
            await m.until_up("second")


async def test_each_backend_holds_as_many_models_as_it_says() -> None:
    with Simulator(FAST) as small, Simulator(FAST) as large:
        async with manager(
            {"name": "small", "url": small.url, "resident": 1},
            {"name": "large", "url": large.url, "resident": 2},
        ) as m:
            await m.until_up("small", "large")
            for modality, body in (
                ("txt2txt", {"prompt": "hello", "model": "sim-chat"}),
                ("txt2img", {"prompt": "a fox", "size": "64x64", "steps": 1}),
                ("txt2txt", {"prompt": "hello", "model": "sim-vision"}),
            ):
                answer = await m.http.post(f"/mcp/{modality}", json=body)
                assert answer.status_code == 200, answer.text

            now = (await m.http.get("/health")).json()["backends"]
            assert {n: len(b["resident"]) for n, b in now.items()} == {"small": 1, "large": 2}


async def test_a_model_that_only_one_backend_offers_runs_there() -> None:
    without = SimulatorConfig.model_validate({"speed": 0, "models": {"sim-chat": None}})
    with Simulator(without) as first, Simulator(FAST) as second:
        async with manager(
            {"name": "first", "url": first.url}, {"name": "second", "url": second.url}
        ) as m:
            await m.until_up("first", "second")

            assert text(await m.say("here")) == "here"

            assert await Control(first)("requests") == []
            assert len(await Control(second)("requests", model="sim-chat")) >= 1


# Whom the manager trusts


async def test_a_private_authority_is_trusted_when_its_certificate_is_given(
    tmp_path: Path,
) -> None:
    ours = Authority(tmp_path)
    with Simulator(FAST) as sim:
        async with (
            between(sim.url, server_side(ours.issue("server"))) as door,
            manager({"name": "gpu", "url": door.url, "ca_bundle": ours.file}) as m,
        ):
            await m.until_up("gpu")

            assert text(await m.say("safe")) == "safe"


@pytest.mark.parametrize(
    "case", ["expired", "another host", "self-signed", "another authority", "no bundle given"]
)
async def test_a_certificate_that_is_wrong_is_not_spoken_to(case: str, tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    shown = {
        "expired": lambda: ours.issue("server", days=-1),
        "another host": lambda: ours.issue("server", host="127.0.0.2"),
        "self-signed": lambda: Authority(tmp_path, "itself").file,
        "another authority": lambda: Authority(tmp_path, "stranger").issue("server"),
        "no bundle given": lambda: ours.issue("server"),
    }[case]()
    bundle = {} if case == "no bundle given" else {"ca_bundle": ours.file}
    with Simulator(FAST) as sim:
        async with (
            between(sim.url, server_side(shown)) as door,
            manager({"name": "gpu", "url": door.url, "key": "sesame", **bundle}) as m,
        ):
            unready = await m.until("/ready", lambda now: "cannot be reached" in str(now))
            waiting = await m.say("secret", wait_seconds=0)

            (reason,) = unready["reasons"]
            assert reason.startswith(f"gpu: backend gpu at {door.url} cannot be reached; ")
            assert "TLS certificate" in reason
            assert waiting.status_code == 202
            assert bytes(door.heard) == b""


async def test_a_backend_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    tls = server_side(ours.issue("server"), asks_for=ours)
    with Simulator(FAST) as sim:
        async with (
            between(sim.url, tls) as door,
            manager(
                {
                    "name": "gpu",
                    "url": door.url,
                    "ca_bundle": ours.file,
                    "client_cert": ours.issue("manager"),
                }
            ) as m,
        ):
            await m.until_up("gpu")

            assert text(await m.say("known")) == "known"


async def test_without_a_certificate_a_backend_that_asks_for_one_hears_nothing(
    tmp_path: Path,
) -> None:
    ours = Authority(tmp_path)
    tls = server_side(ours.issue("server"), asks_for=ours)
    with Simulator(FAST) as sim:
        async with (
            between(sim.url, tls) as door,
            manager({"name": "gpu", "url": door.url, "ca_bundle": ours.file}) as m,
        ):
            unready = await m.until("/ready", lambda now: "not looked" not in str(now))

            assert unready["ready"] is False
            assert bytes(door.heard) == b""


async def test_verification_can_be_switched_off_and_every_start_warns_of_it(
    tmp_path: Path,
) -> None:
    log = tmp_path / "app.log"
    with Simulator(FAST) as sim:
        async with between(sim.url, server_side(Authority(tmp_path).file)) as door:
            backends = (
                {"name": "careless", "url": door.url, "verify": False},
                {"name": "careful", "url": sim.url},
            )
            for _ in range(2):
                async with manager(*backends, log=log) as m:
                    await m.until_up("careless", "careful")

    warnings = [json.loads(line) for line in log.read_text().splitlines()]
    unverified = [w["event"] for w in warnings if "not verified" in w["event"]]
    assert len(unverified) == 2
    assert all("backend careless: " in event for event in unverified)


@pytest.mark.parametrize(
    ("setting", "content", "says"),
    [
        ("key_file", None, "cannot be read: No such file"),
        ("key_file", " \n", "is empty"),
        ("key_file", "not a key", "printable ASCII"),
        ("ca_bundle", None, "cannot be read: No such file"),
        ("ca_bundle", "-----BEGIN CERTIFICATE-----\nsesame", "holds no certificates in PEM"),
        ("ca_bundle", "", "holds no certificates in PEM"),
        ("client_cert", None, "cannot be read: No such file"),
        ("client_cert", "sesame", "does not hold, in PEM, the key of client_cert"),
        ("client_key", None, "cannot be read: No such file"),
        ("client_key", "sesame", "does not hold, in PEM, the key of client_cert"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_setting_and_not_quoted(
    setting: str, content: str | None, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content)
    backend: dict[str, object] = {"name": "gpu", "url": "https://gpu", setting: file}
    if setting == "client_key":
        backend["client_cert"] = Authority(tmp_path).file

    with pytest.raises(BadBackend) as refused:
        create_app(Settings.model_validate({"backends": [backend]}))

    assert says in str(refused.value)
    assert "sesame" not in str(refused.value)
    assert refused.value.setting.startswith("backends.gpu")


def test_a_key_that_is_encrypted_is_refused_and_no_password_is_asked_for(tmp_path: Path) -> None:
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(secret(ec.generate_private_key(ec.SECP256R1()), b"password"))
    backend = {
        "url": "https://gpu",
        "client_cert": Authority(tmp_path).file,
        "client_key": encrypted,
    }

    with pytest.raises(BadBackend, match="unencrypted"):
        create_app(Settings.model_validate({"backends": [backend]}))


# What the manager passes on, and where to


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("when", ["at the first look", "at a job"])
async def test_a_redirect_to_another_host_is_not_followed(status: int, when: str) -> None:
    async with raw_server(reply_to_everything()) as elsewhere:
        moved = (reply(status, "", location=f"{elsewhere.url}/v1/chat/completions"),)
        answers = [] if when == "at the first look" else first_look()
        async with (
            raw_server(*answers, moved) as server,
            manager({"name": "gpu", "url": server.url, "key": "sesame"}) as m,
        ):
            if when == "at the first look":
                unready = await m.until("/ready", lambda now: "not looked" not in str(now))
                assert unready["ready"] is False
            else:
                await m.until_up("gpu")
                failed = await m.say("hello")
                assert failed.json()["error"]["code"] == "backend_protocol_error"

            assert server.heard
            assert elsewhere.connections == 0


def reply_to_everything() -> Sequence[bytes]:
    return (reply(200, {}),)


def first_look() -> list[Sequence[bytes]]:
    """What a LocalAI answers until it is asked for work: version, models, memory."""
    model = {"id": "sim-chat", "object": "model", "capabilities": ["chat"]}
    return [
        (reply(200, {"version": "v4.9.0"}),),
        (reply(200, {"object": "list", "data": [model]}),),
        (reply(200, {"backends": [], "loaded_models": [{"id": "sim-chat"}]}),),
    ]


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")


async def test_proxies_of_the_environment_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    async with raw_server(reply_to_everything()) as proxy:
        for name in PROXIES:
            monkeypatch.setenv(name, proxy.url)
        with Simulator(FAST) as sim:
            async with (
                between(sim.url, server_side(ours.issue("server"))) as door,
                manager(
                    {"name": "plain", "url": sim.url},
                    {"name": "safe", "url": door.url, "ca_bundle": ours.file},
                ) as m,
            ):
                await m.until_up("plain", "safe")

                assert text(await m.say("direct")) == "direct"

        assert proxy.connections == 0


@pytest.mark.parametrize(
    ("scheme", "variable", "asks"),
    [
        ("http", "HTTP_PROXY", "GET http://127.0.0.1:{port}/version "),
        ("https", "HTTPS_PROXY", "CONNECT 127.0.0.1:{port} "),
        ("http", "ALL_PROXY", "GET http://127.0.0.1:{port}/version "),
    ],
)
async def test_a_proxy_of_the_environment_is_used_when_that_is_asked_for(
    scheme: str, variable: str, asks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    async with raw_server((reply(502, ""),)) as proxy:
        monkeypatch.setenv(variable, proxy.url)
        backend = {"name": "gpu", "url": f"{scheme}://127.0.0.1:{port}", "use_proxy_env": True}
        async with manager(backend) as m:
            await m.until("/ready", lambda now: "not looked" not in str(now))

    assert proxy.heard[0].line.startswith(asks.format(port=port))


async def test_a_caller_s_credentials_never_reach_a_backend() -> None:
    credentials = {
        "Authorization": "Bearer CALLER-1",
        "Cookie": "session=CALLER-2; token=CALLER-3",
        "X-Api-Key": "CALLER-4",
        "xi-api-key": "CALLER-5",
        "Proxy-Authorization": "Basic CALLER-6",
        "X-Forwarded-For": "CALLER-7",
    }
    config = SimulatorConfig(speed=0, api_key="sesame")
    with Simulator(config) as sim:
        async with (
            between(sim.url) as door,
            manager({"name": "gpu", "url": door.url, "key": "sesame"}) as m,
            httpx2.AsyncClient(headers=credentials, timeout=PATIENCE_S, trust_env=False) as caller,
        ):
            await m.until_up("gpu")
            body = {"prompt": "repeat: over HTTP", "model": "sim-chat"}
            twin = await caller.post(f"{m.url}/mcp/txt2txt", json=body)
            async with Client(streamable_http_client(f"{m.url}/mcp", http_client=caller)) as client:
                called = await client.call_tool(
                    "txt2txt", {"prompt": "repeat: over MCP", "model": "sim-chat"}
                )

            heard = bytes(door.heard)
            assert text(twin) == "over HTTP"
            assert not called.is_error
            for words in (b"over HTTP", b"over MCP", b"Bearer sesame"):
                assert words in heard
            assert b"CALLER" not in heard


async def test_a_server_that_refuses_our_certificate_is_one_that_was_not_reached(
    tmp_path: Path,
) -> None:
    ours = Authority(tmp_path)
    context = server_side(ours.issue("server"), asks_for=ours)
    listener = socket.create_server(("127.0.0.1", 0))
    client = LocalAIClient(
        name="gpu",
        url=f"https://127.0.0.1:{listener.getsockname()[1]}",
        verify=create_default_context(cafile=str(ours.file)),
    )

    def refuse() -> None:
        door, _ = listener.accept()
        with door.dup() as open_still:  # so that what the client has said is heard, not reset
            with suppress(SSLError):
                context.wrap_socket(door, server_side=True)
            while open_still.recv(4096):
                pass

    refusing = asyncio.create_task(asyncio.to_thread(refuse))
    with pytest.raises(BackendUnavailable) as refused:
        await client.ping()
    await refusing
    await client.close()
    listener.close()

    assert not refused.value.reached
    assert "`client_cert`" in refused.value.hint
