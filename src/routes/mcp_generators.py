"""The MCP tools that generate. What is not offered here can be asked for by plain HTTP."""

from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field, ValidationError

from ..models.errors import InvalidInput
from ..models.requests import (
    Audio2TxtRequest,
    AudioFormat,
    Img2ImgRequest,
    Img2TxtRequest,
    InferenceRequest,
    Txt2AudioRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
    Txt2VecRequest,
)
from .errors import from_validation
from .mcp_arguments import (
    AnySeed,
    Conversation,
    Count,
    Height,
    Key,
    Language,
    MaxTokens,
    Model,
    Negative,
    Picture,
    Pictures,
    Place,
    Recording,
    Show,
    Size,
    Speed,
    Steps,
    Stop,
    Strength,
    Temperature,
    Texts,
    TopP,
    Wait,
    Width,
)
from .mcp_caller import Caller

_GENERATES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)


def add(server: MCPServer, caller: Caller, default_wait: float) -> None:
    """Register the tools; `default_wait` is how many seconds they wait where nobody says."""
    _add_text(server, caller, default_wait)
    _add_pictures(server, caller, default_wait)
    _add_sound(server, caller, default_wait)


def _checked(kind: type[InferenceRequest], **fields: Any) -> InferenceRequest:
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise from_validation(error.errors(), whole="arguments") from None


def _add_text(server: MCPServer, caller: Caller, default_wait: float) -> None:
    @server.tool(title="Generate text", annotations=_GENERATES, structured_output=False)
    async def txt2txt(
        ctx: Context,
        prompt: Annotated[str, Field(description="What to ask the model")] = "",
        messages: Conversation = None,
        system: Annotated[str, Field(description="How the model should behave")] = "",
        model: Model = "",
        temperature: Temperature = None,
        top_p: TopP = None,
        max_tokens: MaxTokens = None,
        stop: Stop = None,
        seed: AnySeed = None,
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Ask a language model on the local server. Give `prompt`, or `messages`, not both."""
        if bool(prompt.strip()) == bool(messages):
            raise InvalidInput("give either prompt or messages, and not empty", param="prompt")
        turns = [turn.model_dump() for turn in messages or ()]
        turns = turns or [{"role": "user", "content": prompt}]
        if system:
            turns.insert(0, {"role": "system", "content": system})
        request = _checked(
            Txt2TxtRequest,
            messages=turns,
            model=model or None,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            stop=stop,
            seed=seed,
        )
        return await caller.run(
            request, ctx, priority=priority, wait_seconds=wait_seconds, key=idempotency_key
        )

    @server.tool(title="Embed texts", annotations=_GENERATES, structured_output=False)
    async def txt2vec(
        ctx: Context,
        input: Texts,  # noqa: A002 - as everybody calls it
        model: Model = "",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Turn each text into a vector. The result has the vectors if they are few, or a link."""
        request = _checked(Txt2VecRequest, input=input, model=model or None)
        return await caller.run(
            request, ctx, priority=priority, wait_seconds=wait_seconds, key=idempotency_key
        )


def _add_pictures(server: MCPServer, caller: Caller, default_wait: float) -> None:
    @server.tool(title="Draw a picture", annotations=_GENERATES, structured_output=False)
    async def txt2img(
        ctx: Context,
        prompt: Annotated[str, Field(description="What to draw")],
        negative_prompt: Negative = "",
        size: Size = "",
        width: Width = None,
        height: Height = None,
        steps: Steps = None,
        seed: AnySeed = None,
        n: Count = 1,
        model: Model = "",
        output: Show = "preview",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Draw pictures from words. The result has their addresses: show the url to the user."""
        request = _checked(
            Txt2ImgRequest,
            prompt=prompt,
            negative_prompt=negative_prompt,
            size=size or None,
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            n=n,
            model=model or None,
        )
        return await caller.run(
            request,
            ctx,
            priority=priority,
            wait_seconds=wait_seconds,
            key=idempotency_key,
            output=output,
        )

    @server.tool(title="Change a picture", annotations=_GENERATES, structured_output=False)
    async def img2img(
        ctx: Context,
        image: Picture,
        prompt: Annotated[str, Field(description="What the picture should become")],
        strength: Strength = None,
        negative_prompt: Negative = "",
        size: Size = "",
        width: Width = None,
        height: Height = None,
        steps: Steps = None,
        seed: AnySeed = None,
        n: Count = 1,
        model: Model = "",
        output: Show = "preview",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Draw a picture anew as the prompt says. It keeps the size of `image` unless told."""
        request = _checked(
            Img2ImgRequest,
            image=image,
            prompt=prompt,
            strength=strength,
            negative_prompt=negative_prompt,
            size=size or None,
            width=width,
            height=height,
            steps=steps,
            seed=seed,
            n=n,
            model=model or None,
        )
        return await caller.run(
            request,
            ctx,
            priority=priority,
            wait_seconds=wait_seconds,
            key=idempotency_key,
            output=output,
        )

    @server.tool(title="Look at a picture", annotations=_GENERATES, structured_output=False)
    async def img2txt(
        ctx: Context,
        image: Picture = "",
        images: Pictures = None,
        question: Annotated[
            str, Field(description="What to say about the picture")
        ] = "Describe this image.",
        model: Model = "",
        temperature: Temperature = None,
        max_tokens: MaxTokens = None,
        seed: AnySeed = None,
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Describe a picture, or answer a question about it. Give `image`, or `images`."""
        if bool(image) == bool(images):
            raise InvalidInput("give either image or images, and not empty", param="image")
        request = _checked(
            Img2TxtRequest,
            images=images or [image],
            question=question,
            model=model or None,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
        )
        return await caller.run(
            request, ctx, priority=priority, wait_seconds=wait_seconds, key=idempotency_key
        )


def _add_sound(server: MCPServer, caller: Caller, default_wait: float) -> None:
    @server.tool(title="Write down a recording", annotations=_GENERATES, structured_output=False)
    async def audio2txt(
        ctx: Context,
        audio: Recording,
        language: Language = "",
        prompt: Annotated[str, Field(description="Words that are likely to occur")] = "",
        translate: Annotated[bool, Field(description="Write it down in English")] = False,
        model: Model = "",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Write down what is said in a recording, and when."""
        request = _checked(
            Audio2TxtRequest,
            audio=audio,
            language=language,
            prompt=prompt,
            translate=translate,
            model=model or None,
        )
        return await caller.run(
            request, ctx, priority=priority, wait_seconds=wait_seconds, key=idempotency_key
        )

    @server.tool(title="Speak a text", annotations=_GENERATES, structured_output=False)
    async def txt2audio(
        ctx: Context,
        input: Annotated[str, Field(description="What to say")],  # noqa: A002 - likewise
        voice: Annotated[
            str, Field(max_length=256, description="A voice of the model; empty for its own")
        ] = "",
        language: Language = "",
        instructions: Annotated[
            str, Field(description="How to say it, where the model heeds it")
        ] = "",
        speed: Speed = None,
        format: Annotated[  # noqa: A002 - likewise
            AudioFormat, Field(description="How the recording is encoded")
        ] = "wav",
        model: Model = "",
        priority: Place = "normal",
        wait_seconds: Wait = default_wait,
        idempotency_key: Key = "",
    ) -> CallToolResult:
        """Speak a text. The result has the recording's address: show the url to the user."""
        request = _checked(
            Txt2AudioRequest,
            input=input,
            voice=voice,
            language=language,
            instructions=instructions,
            speed=speed,
            format=format,
            model=model or None,
        )
        return await caller.run(
            request, ctx, priority=priority, wait_seconds=wait_seconds, key=idempotency_key
        )
