"""What every error code means."""

from src.routes.error_pages import MEANINGS
from src.routes.errors import CODES, OTHER, STATUS
from tests.routes.house import House


def test_every_code_has_a_meaning_and_every_meaning_a_code() -> None:
    codes = {kind.code for kind in STATUS} | {*CODES.values(), OTHER}

    assert MEANINGS.keys() == codes


async def test_a_code_is_explained(shared_house: House) -> None:
    async with shared_house.http() as http:
        page = (await http.get("/errors/rate_limit_exceeded")).json()

    assert (page["code"], page["status"]) == ("rate_limit_exceeded", 429)
    assert "max_waiting_per_caller" in page["meaning"]
    assert "cancel some" in page["what_to_do"]


async def test_a_code_that_nobody_sends_is_not_found(shared_house: House) -> None:
    async with shared_house.http() as http:
        answer = await http.get("/errors/CANARY")

    assert answer.status_code == 404
    assert "CANARY" not in answer.text
