"""`/v1/files`: what batches read, and what they have written."""

from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from ...models.batches import StoredFile
from ...models.errors import InvalidInput
from ...utils.stores.files import INPUT, Files
from ..callers import current_caller
from ..incoming import Incoming, checked
from ..intake import declared_length
from ..pieces import Pieces
from ..wishes import Wishes
from .uploads import described
from .v1_routes import Listed, Listing, v1_routes

UPLOADS = ("/v1/files", "/files")
"""The paths at which bodies may be larger than anywhere else."""

FileId = Annotated[str, Path(max_length=100, description="The file")]
FileAfter = Annotated[str | None, Query(max_length=100, description="The last one that is known")]

FORM_BYTES = 65_536
"""How much a form may have besides its file."""

_LONGEST_NAME = 255


class FileObject(Listed):
    """A file. Times are seconds since 1970."""

    object: Literal["file"] = "file"
    bytes: int = Field(description="Its size")
    created_at: int = Field(description="When it was sent, or finished")
    expires_at: int | None = Field(description="When it is deleted")
    filename: str = Field(description="What its sender called it")
    purpose: str = Field(description="`batch`, or `batch_output` for one with answers")
    status: Literal["processed"] = Field(default="processed", description="Always the same")


class FileDeleted(BaseModel):
    """A file that is no more."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileForm(BaseModel):
    """What is said of a file that is sent."""

    model_config = ConfigDict(
        strict=False,
        extra="forbid",
        hide_input_in_errors=True,
        validate_by_name=True,
        loc_by_alias=False,
    )

    purpose: Literal["batch"] = Field(description="`batch`: files are for nothing else")
    expires_after_anchor: Literal["created_at"] | None = Field(
        default=None, alias="expires_after[anchor]", description="From when on it is kept"
    )
    expires_after_seconds: Annotated[int, Field(ge=3600, le=2_592_000)] | None = Field(
        default=None, alias="expires_after[seconds]", description="How long it is kept"
    )


def build(files: Files, *, longest: int, send_s: float) -> list[APIRoute]:
    """Make the routes; `longest` is how many bytes a form may have."""

    async def create_file(request: Request) -> FileObject:
        """Send a file of lines for a batch: each a request of its own, in JSON."""
        incoming = Incoming(request.scope, request.receive, Wishes(), longest)
        declared = declared_length(dict(request.scope["headers"])) or longest
        async with files.room(min(declared, longest)):
            form = await incoming.form(files=1)
            try:
                told, upload = _read(form)
                name, keep_s = (upload.filename or "")[:_LONGEST_NAME], told.expires_after_seconds
                kept = await files.keep(current_caller(), name, upload.file, keep_s)
            finally:
                await form.close()
        return _shown(kept)

    async def list_files(
        purpose: Annotated[
            str | None, Query(max_length=64, description="Only files for this")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="So many at most")] = 10_000,
        order: Annotated[
            Literal["asc", "desc"], Query(description="`asc`: the oldest first")
        ] = "desc",
        after: FileAfter = None,
    ) -> Listing[FileObject]:
        """List your files."""
        found = await files.list(
            current_caller(), purpose=purpose, after=after, limit=limit + 1, rising=order == "asc"
        )
        return Listing[FileObject].of([_shown(file) for file in found], limit)

    async def retrieve_file(file_id: FileId) -> FileObject:
        """Look at a file."""
        return _shown(await files.get(current_caller(), file_id))

    async def retrieve_file_content(file_id: FileId) -> Response:
        """Fetch what is in a file."""
        file = await files.get(current_caller(), file_id)
        return Pieces(
            files.shelf.pieces(file.id, file.size),
            length=file.size,
            media_type="application/jsonl",
            headers={
                "Content-Disposition": f'attachment; filename="{file.id}.jsonl"',
                "X-Content-Type-Options": "nosniff",
            },
            send_s=send_s,
        )

    async def delete_file(file_id: FileId) -> FileDeleted:
        """Delete a file that no batch reads."""
        await files.delete(current_caller(), file_id)
        return FileDeleted(id=file_id)

    form = described(FileForm, required="file", about="The lines")
    content: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/jsonl": {}}, "description": "The lines"}
    }
    return [
        *v1_routes(
            "/files",
            "POST",
            create_file,
            "Send a file",
            *(400, 413, 415),
            openapi_extra={"requestBody": form},
        ),
        *v1_routes("/files", "GET", list_files, "List files", 400),
        *v1_routes("/files/{file_id}", "GET", retrieve_file, "Look at a file", 400, 404),
        *v1_routes(
            "/files/{file_id}/content",
            "GET",
            retrieve_file_content,
            "Fetch a file",
            *(400, 404),
            response_class=Response,
            answers=content,
        ),
        *v1_routes("/files/{file_id}", "DELETE", delete_file, "Delete a file", 400, 404, 409),
    ]


def _read(form: FormData) -> tuple[FileForm, UploadFile]:
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise InvalidInput(
            "file must be given, as a file", param="file", hint="with curl: -F file=@FILE"
        )
    if form.get("purpose") not in (INPUT, None):
        raise InvalidInput("purpose must be batch: files are for nothing else", param="purpose")
    texts = {_plain(k): v for k, v in form.items() if isinstance(v, str)}
    return checked(FileForm, texts), upload


def _plain(name: str) -> str:
    """Write `expires_after[seconds]` as a name that an error can tell."""
    return name.replace("[", "_").removesuffix("]")


def _shown(file: StoredFile) -> FileObject:
    return FileObject(
        id=file.id,
        bytes=file.size,
        created_at=int(file.created_at),
        expires_at=None if file.expires_at is None else int(file.expires_at),
        filename=file.name,
        purpose=file.purpose,
    )
