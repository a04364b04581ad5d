"""What a client sees: requests over `http.client`, and bytes on a bare socket."""

import json
import socket
import struct
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any

from src.simulator.serve import Simulator

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream, `[DONE]` as it is."""
        lines = [line for line in self.body.decode().split("\n\n") if line]
        data = [line.removeprefix("data: ") for line in lines]
        return [event if event == "[DONE]" else json.loads(event) for event in data]

    @property
    def content(self) -> str:
        """The text of a chat stream."""
        choices = [event["choices"] for event in self.events if event != "[DONE]"]
        return "".join(each[0]["delta"]["content"] or "" for each in choices if each)


class Raw:
    """Requests to one simulator, each on its own connection."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def get(self, path: str, **headers: str) -> Answer:
        return self._call("GET", path, None, headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self._call("POST", path, json.dumps(body).encode(), headers)

    def send(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        return self._call(method, path, body, headers)

    def chat(self, content: object, **fields: object) -> Answer:
        return self.post("/v1/chat/completions", chat_body(content, **fields))

    def image(self, prompt: str, **fields: object) -> Answer:
        return self.post("/v1/images/generations", image_body(prompt, **fields))

    def open(self, path: str, body: object, **headers: str) -> socket.socket:
        """Send a request on a bare socket and read nothing yet."""
        return self.open_bytes(path, json.dumps(body).encode(), **headers)

    def open_bytes(self, path: str, content: bytes, **headers: str) -> socket.socket:
        head = {
            "Host": f"127.0.0.1:{self._simulator.port}",
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{key}: {value}" for key, value in head.items())]
        connection = socket.create_connection(("127.0.0.1", self._simulator.port), PATIENCE)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)
        return connection

    def open_chat(self, content: object, **fields: object) -> socket.socket:
        return self.open("/v1/chat/completions", chat_body(content, **fields))

    def open_image(self, prompt: str, **fields: object) -> socket.socket:
        return self.open("/v1/images/generations", image_body(prompt, **fields))

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._simulator.port, timeout=PATIENCE)
        try:
            sent = {"Content-Type": "application/json"} if body is not None else {}
            sent |= {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, body, sent)
            response: HTTPResponse = connection.getresponse()
            return Answer(response.status, lowered(response), response.read())
        finally:
            connection.close()


def lowered(response: HTTPResponse) -> dict[str, str]:
    return {key.lower(): value for key, value in response.getheaders()}


def chat_body(content: object, **fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content}]
    return {"model": "sim-chat", "messages": messages, **fields}


def image_body(prompt: str, **fields: object) -> dict[str, object]:
    asked = {"model": "sim-image", "prompt": prompt, "size": "64x64", "seed": 7}
    return {**asked, "response_format": "b64_json", **fields}


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side ends."""
    pieces: list[bytes] = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    connection.close()
    return b"".join(pieces)


def hang_up(connection: socket.socket) -> None:
    """Leave at once, as a client does whose user pressed the stop button."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
