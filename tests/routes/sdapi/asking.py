"""How the tests of the web UI's API ask, and what they read out of the answers."""

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import httpx2
import PIL.Image

from tests.routes.house import House

TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
SMALL: dict[str, Any] = {"prompt": "a red fox", "width": 64, "height": 64, "steps": 1}


async def post(
    house: House,
    path: str,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.Response:
    async with house.http() as http:
        return await http.post(path, json=body, headers=headers)


async def get(house: House, path: str, headers: Mapping[str, str] | None = None) -> Any:
    async with house.http() as http:
        return (await http.get(path, headers=headers)).raise_for_status().json()


async def drawn(house: House, path: str, body: Mapping[str, Any]) -> list[PIL.Image.Image]:
    """Return the pictures of an answer."""
    response = await post(house, path, body)
    assert response.status_code == 200, response.text
    return pictures(response)


def pictures(response: httpx2.Response) -> list[PIL.Image.Image]:
    data = [base64.b64decode(each) for each in response.json()["images"]]
    return [PIL.Image.open(io.BytesIO(each)) for each in data]


def info(response: httpx2.Response) -> dict[str, Any]:
    return dict(json.loads(response.json()["info"]))


def parameters(picture: PIL.Image.Image) -> str:
    """Return how the simulator was asked to draw a picture, which it writes into it."""
    return str(picture.info["parameters"])
