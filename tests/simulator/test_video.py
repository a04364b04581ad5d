import base64
from io import BytesIO

import pytest
from PIL import Image

from src.simulator.client import ControlClient
from src.simulator.pictures import Wish, png
from tests.simulator.raw import Answer, Raw, hang_up

FOX = base64.b64encode(png(Wish("a red fox", width=64, height=64, seed=1))).decode()
ASKED = {"model": "sim-video", "prompt": "a red fox", "width": 64, "height": 48, "seed": 7}


def filmed(raw: Raw, **fields: object) -> Answer:
    return raw.post("/video", {**ASKED, "response_format": "b64_json", **fields})


def film_in(answer: Answer) -> bytes:
    return base64.b64decode(answer.json["data"][0]["b64_json"])


def frames_in(film: bytes) -> list[bytes]:
    return [b"\xff\xd8" + rest for rest in film.partition(b"mdat")[2].split(b"\xff\xd8")[1:]]


def test_an_answer_has_localais_shape(raw: Raw, control: ControlClient) -> None:
    answer = filmed(raw)

    assert answer.status == 200
    body = answer.json
    assert list(body) == ["created", "id", "data"]
    assert list(body["data"][0]) == ["embedding", "index", "b64_json"]
    frames = frames_in(film_in(answer))
    assert len(frames) == 8
    assert {Image.open(BytesIO(frame)).size for frame in frames} == {(64, 48)}
    assert len(set(frames)) == 8
    assert b"[simulated] a red fox" in film_in(answer)
    entry = control.requests()[-1]
    assert (entry.modality, entry.done) == ("txt2video", 8)


def test_an_address_leads_to_the_film(raw: Raw) -> None:
    url = filmed(raw, response_format=None).json["data"][0]["url"]

    path = "/" + url.split("/", 3)[3]
    fetched = raw.get(path)
    assert path.startswith("/generated-videos/")
    assert fetched.headers["content-type"] == "video/mp4"
    assert fetched.body == film_in(filmed(raw))
    assert raw.get(path.replace("videos", "images")).status == 404
    assert raw.get("/generated-videos/b649999.mp4").status == 404


def test_pictures_and_films_are_numbered_together(raw: Raw) -> None:
    urls = [filmed(raw, response_format="url"), raw.image("fox", response_format="url")]
    names = [answer.json["data"][0]["url"].rpartition("/")[2] for answer in urls]

    assert names == ["b641.mp4", "b642.png"]


def test_the_number_of_frames_is_as_asked_for(raw: Raw) -> None:
    film = film_in(filmed(raw, num_frames=3, fps=2))

    assert len(frames_in(film)) == 3
    assert filmed(raw, num_frames=241).status == 500
    assert filmed(raw, num_frames=-1).status == 500
    assert filmed(raw, width=1).status == 500


def test_a_seed_decides_and_without_one_each_film_differs(raw: Raw) -> None:
    assert film_in(filmed(raw)) == film_in(filmed(raw))
    assert film_in(filmed(raw)) != film_in(filmed(raw, seed=8))
    assert film_in(filmed(raw, seed=-1)) != film_in(filmed(raw, seed=-1))


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_a_picture_to_start_from_is_taken_plain_or_as_a_data_uri(raw: Raw, prefix: str) -> None:
    started = filmed(raw, start_image=prefix + FOX)

    assert started.status == 200
    assert film_in(started) != film_in(filmed(raw))


@pytest.mark.parametrize("field", ["start_image", "end_image", "audio"])
def test_bad_media_is_a_400(raw: Raw, field: str) -> None:
    answer = filmed(raw, **{field: "https://host.example/%"})

    assert answer.status == 400
    assert "invalid image input: " in answer.json["error"]["message"]


def test_bytes_that_are_no_picture_are_a_400_too(raw: Raw) -> None:
    assert filmed(raw, start_image=base64.b64encode(b"no picture").decode()).status == 400


def test_a_film_too_large_for_the_card_is_out_of_memory(raw: Raw) -> None:
    answer = filmed(raw, width=4096, height=4096)

    assert "out of memory" in answer.json["error"]["message"]


def test_not_even_the_load_ends_with_the_client(raw: Raw, control: ControlClient) -> None:
    control.patch_model("sim-video", load_s=1000)
    control.patch(speed=1)
    left = raw.open("/video", ASKED)
    control.wait(state="waiting")

    hang_up(left)

    assert control.wait(state="ended")[0].ending == "client_left"
    assert control.state().models["sim-video"].state == "loading"
    control.patch(speed=0)
    entry = control.wait(state="settled")[0]
    assert (entry.done, entry.worked_on) == (8, True)
