"""A backend that does what its prompt says, for the scenarios in which a job takes a while."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from src.models.errors import BackendRejected, StorageFailed
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.models.requests import InferenceRequest, Txt2TxtRequest
from src.models.results import Chunk, Finish, TextDelta


class SlowBackend:
    """Understands `take SECONDS and say TEXT`, `... and refuse`, `... and fail`."""

    name = "slow"
    loads_on_demand = True

    async def run(
        self,
        request: InferenceRequest,
        model: str,  # noqa: ARG002
        job_id: str,  # noqa: ARG002
    ) -> AsyncGenerator[Chunk]:
        assert isinstance(request, Txt2TxtRequest)
        _, seconds, _, what, *words = str(request.messages[-1].content).split()
        await asyncio.sleep(float(seconds))
        if what == "refuse":
            raise BackendRejected("there is no such thing")
        if what == "fail":
            raise StorageFailed("the disk is gone")
        yield TextDelta(" ".join(words))
        yield Finish()

    def stops_at_once(self, request: InferenceRequest) -> bool:  # noqa: ARG002
        return True

    async def load(self, model: str) -> None:
        pass

    async def unload(self, model: str) -> None:
        pass

    async def models(self) -> Sequence[OfferedModel]:
        return [OfferedModel("slow-chat", frozenset({Modality.TXT2TXT}))]

    async def resident(self) -> frozenset[str] | None:
        return None

    async def ping(self) -> str:
        return "slow"

    async def close(self) -> None:
        pass
