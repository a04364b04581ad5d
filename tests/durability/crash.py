"""A server that is killed again and again under load, and callers who write down what it said."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx2

from .oracle import Diary, Told

ROOT = Path(__file__).parent.parent.parent
_PATIENCE_S = 60.0


class Phoenix:
    """The server, in as many lives as it is given; see `dying`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ready = asyncio.Event()
        self.births: list[float] = []
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process
        self._reading: asyncio.Task[None]
        self._pid = 0
        self._born = asyncio.Event()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.durability.dying",
            cwd=ROOT,
            env=self._environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._send(signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(_PATIENCE_S):
            await self._reading
            await self._process.wait()

    async def live(self, point: str = "", nth: int = 1) -> None:
        """Begin a life; return when it answers, or is over already."""
        await self.begin(point, nth)
        ready = asyncio.create_task(self.ready.wait())
        ended = asyncio.create_task(self.ended(_PATIENCE_S))
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        assert ready.done() or ended.result(), "it neither answers nor ends"
        ready.cancel()
        ended.cancel()

    async def begin(self, point: str = "", nth: int = 1) -> None:
        """Begin a life."""
        assert self._process.stdin is not None
        self._ended = asyncio.get_running_loop().create_future()
        self._born.clear()
        self.births.append(time.time())
        life = {"port": self.port, "point": point, "nth": nth}
        self._process.stdin.write(json.dumps(life).encode() + b"\n")
        async with asyncio.timeout(_PATIENCE_S):
            await self._born.wait()

    async def ended(self, within_s: float) -> bool:
        """Wait for its end; say whether it came."""
        done, _ = await asyncio.wait({self._ended}, timeout=within_s)
        return bool(done)

    async def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal, unless it is dead already; return how it ended."""
        self._send(how)
        async with asyncio.timeout(_PATIENCE_S):
            return await self._ended

    def _send(self, how: signal.Signals) -> None:
        if self._pid:
            with suppress(ProcessLookupError):  # it has just died by itself
                os.kill(self._pid, how)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, _, number = line.decode().partition(" ")
            match word.strip():
                case "born":
                    self._pid = int(number)
                    self._born.set()
                case "ready":
                    self.ready.set()
                case "ended":
                    self._pid = 0
                    self.ready.clear()
                    self._ended.set_result(int(number))
                case _:
                    raise AssertionError(line)


class Swarm:
    """Callers who hand over work in every way there is, and note what they are told."""

    def __init__(self, server: Phoenix, seed: int) -> None:
        self.diary = Diary(births=server.births)
        self._server = server
        self._dice = random.Random(seed)
        self._count = 0
        self._over = False
        self._enough = 0
        self._has_enough = asyncio.Event()

    async def play(self, callers: int, pause_s: float) -> None:
        """Go on until told to stop."""
        limits = httpx2.Limits(max_connections=callers * 2)
        timeout = httpx2.Timeout(5.0)
        async with (
            httpx2.AsyncClient(
                base_url=self._server.url, limits=limits, timeout=timeout, trust_env=False
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(callers):
                tasks.create_task(self._live(client, pause_s))

    async def is_told_of(self, count: int, within_s: float) -> None:
        """Wait until so many more jobs were accepted, at most so long."""
        self._enough = len(self.diary.accepted) + count
        self._has_enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._has_enough.wait()

    def stop(self) -> None:
        self._over = True

    async def _live(self, client: httpx2.AsyncClient, pause_s: float) -> None:
        ways = [self._one, self._several, self._async, self._keyed, self._plain, self._cancel]
        weights = [3, 1, 2, 2, 2, 1]
        while not self._over:
            if not self._server.ready.is_set():
                await asyncio.sleep(0.01)
                continue
            [way] = self._dice.choices(ways, weights)
            await way(client)
            await asyncio.sleep(self._dice.uniform(0, 2 * pause_s))

    async def _one(self, client: httpx2.AsyncClient) -> None:
        words = self._words()
        body = self._image(words) if self._dice.random() < 0.2 else self._chat(words)
        answer = await self._send(client, "POST", "/jobs", json=body)
        if answer is not None and answer.status_code in (200, 202):
            self._accept(answer.json()["job_id"], words if body["modality"] == "txt2txt" else "")

    async def _several(self, client: httpx2.AsyncClient) -> None:
        words = [self._words() for _ in range(self._dice.randint(2, 5))]
        body = {"jobs": [self._chat(w) for w in words]}
        answer = await self._send(client, "POST", "/jobs", json=body)
        if answer is not None and answer.status_code in (200, 202):
            for job, said in zip(answer.json()["jobs"], words, strict=True):
                self._accept(job["job_id"], said)

    async def _async(self, client: httpx2.AsyncClient) -> None:
        words = self._words()
        answer = await self._send(
            client,
            "POST",
            "/v1/chat/completions",
            json=self._completion(words),
            headers={"Prefer": "respond-async"},
        )
        if answer is not None and answer.status_code == 202:
            self._accept(answer.json()["job_id"], words)

    async def _keyed(self, client: httpx2.AsyncClient) -> None:
        """Send it until it is answered, whoever answers; then once more."""
        words = self._words()
        times = 0
        while times < 2 and not self._over:
            answer = await self._send(
                client,
                "POST",
                "/v1/chat/completions",
                json=self._completion(words),
                headers={"Idempotency-Key": words},
            )
            if answer is None:
                await asyncio.sleep(0.05)
            elif answer.status_code == 200:
                times += 1
                self.diary.keys[words].add(answer.headers["x-job-id"])
                if words not in answer.text:
                    self.diary.odd.append(f"the key {words} brought another answer")
            else:
                self._refused(answer)
                await asyncio.sleep(0.05)

    async def _plain(self, client: httpx2.AsyncClient) -> None:
        words = self._words()
        answer = await self._send(
            client, "POST", "/v1/chat/completions", json=self._completion(words)
        )
        if answer is not None and answer.status_code == 200 and words not in answer.text:
            self.diary.odd.append(f"{words} was answered with something else")

    async def _cancel(self, client: httpx2.AsyncClient) -> None:
        known = [job_id for job_id in self.diary.accepted if job_id not in self.diary.cancelling]
        if not known:
            return
        job_id = self._dice.choice(known[-20:])
        self.diary.cancelling.add(job_id)
        answer = await self._send(client, "DELETE", f"/jobs/{job_id}")
        if answer is None:
            return
        if answer.status_code != 200:
            self.diary.odd.append(f"cancelling {job_id} was answered with {answer.status_code}")
            return
        self.diary.ended[job_id] = answer.json()["state"]

    async def _send(
        self, client: httpx2.AsyncClient, method: str, path: str, **how: Any
    ) -> httpx2.Response | None:
        try:
            answer = await client.request(method, path, **how)
        except httpx2.TransportError:
            self.diary.broken += 1
            return None
        if answer.status_code >= 400:
            self._refused(answer)
        return answer

    def _refused(self, answer: httpx2.Response) -> None:
        self.diary.refused += 1
        if answer.status_code not in (429, 503):
            self.diary.odd.append(f"an answer was {answer.status_code}: {answer.text[:300]}")

    def _accept(self, job_id: str, words: str) -> None:
        self.diary.accepted[job_id] = Told(job_id, words)
        if len(self.diary.accepted) >= self._enough:
            self._has_enough.set()

    def _words(self) -> str:
        self._count += 1
        return f"word-{self._count}-end"

    def _chat(self, words: str) -> dict[str, Any]:
        return {"modality": "txt2txt", "prompt": f"repeat: {words}", "model": "sim-chat"}

    def _image(self, words: str) -> dict[str, Any]:
        size = {"width": 64, "height": 64, "steps": 1}
        return {"modality": "txt2img", "prompt": words, "model": "sim-image", **size}

    def _completion(self, words: str) -> dict[str, Any]:
        said = [{"role": "user", "content": f"repeat: {words}"}]
        return {"model": "sim-chat", "messages": said}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def idle(url: str, patience_s: float) -> None:
    """Wait until nothing waits and nothing runs any more."""
    async with (
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
        asyncio.timeout(patience_s),
    ):
        while True:
            status = (await client.get("/queue-status")).json()
            if not status["waiting"] and not status["running"]:
                return
            await asyncio.sleep(0.05)
