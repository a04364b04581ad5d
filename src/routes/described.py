"""The OpenAPI document, without what FastAPI says of doors that it does not keep."""

from typing import Any

from fastapi import FastAPI

_THEIRS = ("HTTPValidationError", "ValidationError")


def describe_without_defaults(app: FastAPI) -> None:
    """Leave out the 422 that FastAPI adds by itself: no door answers it in that shape."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            for operations in document["paths"].values():
                for operation in operations.values():
                    if _THEIRS[0] in str(operation["responses"].get("422", "")):
                        del operation["responses"]["422"]
            for name in _THEIRS:
                document["components"]["schemas"].pop(name, None)
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]
