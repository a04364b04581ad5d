"""Routes whose errors are answered as OpenAI's clients expect them, and lists page by page."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from ...models.errors import InferenceManagerError
from ..errors import answer, error_responses, from_validation


class Listed(BaseModel):
    """Something that a list may hold."""

    id: str = Field(description="Its name")


L = TypeVar("L", bound=Listed)


class Listing(BaseModel, Generic[L]):
    """A page of a list."""

    object: str = "list"
    data: list[L]
    first_id: str | None = Field(description="The first of this page")
    last_id: str | None = Field(description="The last; given as `after`, it leads to the next page")
    has_more: bool = Field(description="Whether there is a next page")

    @classmethod
    def of(cls, found: Sequence[L], limit: int) -> Self:
        """Make a page of so many; one more than that was found if there is another page."""
        shown = list(found[:limit])
        return cls(
            data=shown,
            first_id=shown[0].id if shown else None,
            last_id=shown[-1].id if shown else None,
            has_more=len(found) > limit,
        )


class V1Route(APIRoute):
    """Answers what is wrong with a request with 400, and says the hint in the message."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers."""
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return answer(from_validation(error.errors()), v1=True)
            except InferenceManagerError as error:
                return answer(error, v1=True)

        return answered


def v1_routes(
    path: str,
    method: str,
    endpoint: Callable[..., Any],
    summary: str,
    *errors: int,
    answers: Mapping[int | str, dict[str, Any]] | None = None,
    **told: Any,
) -> list[APIRoute]:
    """Make the routes of an endpoint, with `/v1` and without; the first of them is shown."""
    return [
        V1Route(
            shown + path,
            endpoint,
            methods=[method],
            summary=summary,
            tags=["openai"],
            responses={**(answers or {}), **error_responses(401, 507, *errors)},
            include_in_schema=bool(shown),
            name=endpoint.__name__ if shown else f"{endpoint.__name__}_1",
            **told,
        )
        for shown in ("/v1", "")
    ]
