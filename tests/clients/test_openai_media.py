"""OpenAI's own client: pictures and sound."""

import base64
import io
from pathlib import Path

import httpx2
import PIL.Image
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImagesResponse

from tests.clients.conftest import KEY
from tests.routes.house import House, png


def opened(data: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(data))


def inside(response: ImagesResponse) -> list[PIL.Image.Image]:
    """Return the pictures that are in an answer."""
    return [opened(base64.b64decode(item.b64_json or "")) for item in response.data or []]


def behind(response: ImagesResponse) -> list[PIL.Image.Image]:
    """Fetch the pictures whose addresses are in an answer."""
    with httpx2.Client(trust_env=False) as http:
        fetched = [http.get(item.url or "").raise_for_status() for item in response.data or []]
    return [opened(each.content) for each in fetched]


def parameters(picture: PIL.Image.Image) -> str:
    return str(picture.info["parameters"])


def mask(width: int, height: int) -> bytes:
    """Return a mask as OpenAI wants it: transparent where something new shall be."""
    picture = PIL.Image.new("RGBA", (width, height), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, width // 2, height))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# images.generate


def test_generate_gives_the_address_of_a_picture(client: OpenAI, house: House) -> None:
    drawn = client.images.generate(model="sim-image", prompt="a red fox", size="256x256")

    [item] = drawn.data or []
    assert item.b64_json is None
    assert (item.url or "").startswith(house.url)
    [picture] = behind(drawn)
    assert (picture.format, picture.size) == ("PNG", (256, 256))
    assert "a red fox" in parameters(picture)


def test_generate_gives_the_picture_itself(client: OpenAI) -> None:
    drawn = client.images.generate(
        model="sim-image", prompt="a red fox", size="256x256", response_format="b64_json"
    )

    [item] = drawn.data or []
    assert item.url is None
    assert drawn.created > 1_700_000_000
    [picture] = inside(drawn)
    assert (picture.format, picture.size) == ("PNG", (256, 256))


def test_generate_draws_several_pictures(client: OpenAI) -> None:
    drawn = client.images.generate(
        model="sim-image", prompt="a red fox", size="256x256", n=2, response_format="b64_json"
    )

    first, second = inside(drawn)
    assert first.tobytes() != second.tobytes()


async def test_the_async_client_draws(aclient: AsyncOpenAI) -> None:
    drawn = await aclient.images.generate(
        model="sim-image", prompt="a red fox", size="256x256", response_format="b64_json"
    )

    assert [picture.size for picture in inside(drawn)] == [(256, 256)]


def test_fields_that_localai_knows_pass_through(client: OpenAI) -> None:
    drawn = client.images.generate(
        model="sim-image",
        prompt="a red fox",
        size="256x256",
        response_format="b64_json",
        extra_body={"step": 3, "seed": 7, "negative_prompt": "birds"},
    )

    [picture] = inside(drawn)
    assert all(word in parameters(picture) for word in ("7", "3", "birds"))


# images.edit and images.create_variation, which LocalAI does not have


def test_edit_changes_a_picture(client: OpenAI) -> None:
    edited = client.images.edit(
        model="sim-image",
        image=("fox.png", png(256, 256)),
        prompt="make it snow",
        size="256x256",
        response_format="b64_json",
    )

    [picture] = inside(edited)
    assert picture.size == (256, 256)
    assert "make it snow" in parameters(picture)


def test_edit_takes_a_list_of_pictures(client: OpenAI) -> None:
    edited = client.images.edit(
        model="sim-image",
        image=[("fox.png", png(256, 256))],
        prompt="make it snow",
        size="256x256",
        response_format="b64_json",
    )

    assert [picture.size for picture in inside(edited)] == [(256, 256)]


def test_edit_with_a_mask_repaints_what_is_transparent(client: OpenAI) -> None:
    edited = client.images.edit(
        model="sim-image",
        image=("fox.png", png(512, 512, "teal")),
        mask=("mask.png", mask(512, 512)),
        prompt="a red fox",
        size="512x512",
        response_format="b64_json",
    )

    [picture] = inside(edited)
    kept = {
        colour for _, colour in picture.convert("RGB").crop((300, 50, 500, 400)).getcolors() or []
    }
    assert kept == {(0, 128, 128)}
    repainted = picture.convert("RGB").crop((50, 50, 200, 400)).getcolors(200_000) or []
    assert len(repainted) > 1


def test_edit_gives_the_address_of_a_picture(client: OpenAI, house: House) -> None:
    edited = client.images.edit(
        model="sim-image", image=("fox.png", png(256, 256)), prompt="snow", response_format="url"
    )

    [item] = edited.data or []
    assert (item.url or "").startswith(house.url)
    assert [picture.format for picture in behind(edited)] == ["PNG"]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_create_variation_draws_something_similar(client: OpenAI) -> None:
    varied = client.images.create_variation(  # pyright: ignore[reportDeprecated]
        model="sim-image",
        image=("fox.png", png(256, 256)),
        n=2,
        size="256x256",
        response_format="b64_json",
    )

    assert [picture.size for picture in inside(varied)] == [(256, 256), (256, 256)]


# audio


def test_speech_gives_a_recording(client: OpenAI) -> None:
    spoken = client.audio.speech.create(
        model="sim-voice", voice="alloy", input="hello there", response_format="wav"
    )

    assert spoken.content.startswith(b"RIFF")
    assert spoken.response.headers["content-type"].startswith("audio/")


def test_speech_is_written_to_a_file_as_it_comes(client: OpenAI, tmp_path: Path) -> None:
    file = tmp_path / "hello.wav"
    with client.audio.speech.with_streaming_response.create(
        model="sim-voice", voice="alloy", input="hello there", response_format="wav"
    ) as spoken:
        spoken.stream_to_file(file)

    assert file.read_bytes().startswith(b"RIFF")


@pytest.fixture
def recording(client: OpenAI) -> tuple[str, bytes]:
    spoken = client.audio.speech.create(
        model="sim-voice", voice="alloy", input="hello there", response_format="wav"
    )
    return "hello.wav", spoken.content


def test_transcriptions_give_the_text(client: OpenAI, recording: tuple[str, bytes]) -> None:
    heard = client.audio.transcriptions.create(model="sim-voice", file=recording)

    assert heard.text.endswith('from "hello there".')


def test_transcriptions_give_bare_text(client: OpenAI, recording: tuple[str, bytes]) -> None:
    heard = client.audio.transcriptions.create(
        model="sim-voice", file=recording, response_format="text"
    )

    assert heard.strip().endswith('from "hello there".')
    assert not heard.startswith("{")


def test_transcriptions_give_segments(client: OpenAI, recording: tuple[str, bytes]) -> None:
    heard = client.audio.transcriptions.create(
        model="sim-voice", file=recording, response_format="verbose_json", language="en"
    )

    assert heard.duration == 0.66
    assert heard.segments
    assert heard.segments[0].start == 0
    assert heard.segments[-1].end == pytest.approx(0.66, abs=0.01)


def test_transcriptions_give_subtitles(client: OpenAI, recording: tuple[str, bytes]) -> None:
    srt = client.audio.transcriptions.create(
        model="sim-voice", file=recording, response_format="srt"
    )
    vtt = client.audio.transcriptions.create(
        model="sim-voice", file=recording, response_format="vtt"
    )

    assert srt.startswith("1\n00:00:00,000 --> ")
    assert vtt.startswith("WEBVTT")


def test_transcriptions_are_streamed(client: OpenAI, recording: tuple[str, bytes]) -> None:
    events = client.audio.transcriptions.create(model="sim-voice", file=recording, stream=True)

    *deltas, whole = events
    assert whole.type == "transcript.text.done"
    assert "".join(it.delta for it in deltas if it.type == "transcript.text.delta") == whole.text


async def test_the_async_client_speaks_and_listens(house: House) -> None:
    async with AsyncOpenAI(base_url=house.url, api_key=KEY, max_retries=0) as client:
        spoken = await client.audio.speech.create(
            model="sim-voice", voice="alloy", input="good day", response_format="wav"
        )
        heard = await client.audio.transcriptions.create(
            model="sim-voice", file=("day.wav", spoken.content)
        )

    assert heard.text.endswith('from "good day".')
