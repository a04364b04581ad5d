"""The OpenAPI document, without what FastAPI says of doors that it does not keep."""

from typing import Any

from fastapi import FastAPI

from .errors import ErrorBody

_THEIRS = ("HTTPValidationError", "ValidationError")


def describe_without_defaults(app: FastAPI) -> None:
    """Leave out the 422 that FastAPI adds by itself: no door answers it in that shape.

    The shape that errors have is added once, rather than by every route.
    """
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            for operations in document["paths"].values():
                for operation in operations.values():
                    if _THEIRS[0] in str(operation["responses"].get("422", "")):
                        del operation["responses"]["422"]
            schemas = document["components"]["schemas"]
            for name in _THEIRS:
                schemas.pop(name, None)
            body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**body.pop("$defs"), "ErrorBody": body}
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
