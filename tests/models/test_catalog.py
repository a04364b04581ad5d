import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from src.models.capacity import ModelLimits
from src.models.catalog import Catalog, ModelDefinition
from src.models.errors import BackendUnseen, InvalidInput, UnknownModel
from src.models.modality import Modality
from src.models.ports import OfferedModel
from src.models.requests import (
    REQUESTS,
    Img2ImgRequest,
    InpaintRequest,
    Txt2ImgRequest,
    Txt2TxtRequest,
)
from src.utils.localai_catalog import modalities

from .making import CHAT, DRAW, EDIT, LOOK, chat, small


def offered(**models: frozenset[Modality] | set[Modality] | None) -> list[OfferedModel]:
    return [
        OfferedModel(name, None if uses is None else frozenset(uses))
        for name, uses in models.items()
    ]


def draw(**fields: Any) -> Txt2ImgRequest:
    return Txt2ImgRequest.model_validate({"prompt": "p", **fields})


def edit(**fields: Any) -> Img2ImgRequest:
    return Img2ImgRequest.model_validate({"prompt": "p", "image": "aGk=", **fields})


def defined(name: str, **fields: Any) -> ModelDefinition:
    return ModelDefinition.model_validate({"name": name, **fields})


def test_before_any_backend_has_answered_every_name_is_taken() -> None:
    catalog = Catalog()

    assert not catalog.known
    assert catalog.resolve(chat(model="anything")) == "anything"
    assert catalog.resolve(chat()) is None
    assert catalog.mismatches() == []


def test_a_request_without_a_name_gets_the_default_of_its_modality() -> None:
    models = offered(b={CHAT}, a={CHAT}, c={DRAW})

    assert Catalog(models).resolve(chat()) == "a"
    assert Catalog(models, [defined("b", default=True)]).resolve(chat()) == "b"
    assert Catalog(models).models(CHAT) == ["a", "b"]
    assert Catalog(models).names == ["a", "b", "c"]


def test_a_definition_has_the_last_word_on_what_a_model_is_for() -> None:
    catalog = Catalog(
        offered(a={CHAT}, b=None, c=set(), **{"Flux-Dev": {DRAW}}),
        [defined("a", modality="img2txt"), defined("d", modality=["txt2txt", "txt2img"])],
    )

    assert catalog.modalities("a") == frozenset({LOOK})
    assert catalog.modalities("b") is None
    assert catalog.modalities("c") == frozenset()
    assert catalog.modalities("d") == frozenset({CHAT, DRAW})
    assert catalog.modalities("Flux-Dev") == frozenset({DRAW, EDIT})
    assert catalog.modalities("Qwen2.5-32B-Instruct") == frozenset({CHAT})


def test_a_model_of_which_nobody_knows_the_use_may_be_named_but_is_nobodys_default() -> None:
    catalog = Catalog(offered(mystery=None))

    assert catalog.resolve(chat(model="mystery")) == "mystery"
    with pytest.raises(UnknownModel, match="no model for txt2txt is offered") as refused:
        catalog.resolve(chat())
    assert refused.value.hint == (
        "nobody says what these are for: mystery; name one in `model`, or "
        "add a file to models/ with `name:` and `modality: txt2txt`"
    )


def test_a_model_is_unsaid_until_its_backend_or_a_definition_says_what_it_is_for() -> None:
    models = offered(mystery=None, told={DRAW}, nothing=set(), **{"Flux-Dev": None})
    catalog = Catalog(models)

    assert catalog.unsaid == ["mystery"]
    assert Catalog(models, [defined("mystery", modality="txt2txt")]).unsaid == []
    assert not any("mystery" in mismatch for mismatch in catalog.mismatches())
    with pytest.raises(UnknownModel) as refused:
        catalog.resolve(chat())
    assert "mystery; name one" in refused.value.hint


def test_where_no_model_changes_pictures_the_hint_says_that_localai_does_not_tell() -> None:
    with pytest.raises(UnknownModel) as refused:
        Catalog(offered(painter={DRAW})).resolve(edit())

    assert "`modality: [txt2img, img2img]`" in refused.value.hint


def test_where_no_model_fills_in_pictures_the_hint_says_which_file_to_write() -> None:
    fill_in = small(InpaintRequest)

    with pytest.raises(UnknownModel) as refused:
        Catalog(offered(painter={DRAW})).resolve(fill_in)
    assert "LocalAI does not say" in refused.value.hint
    assert "`modality: [txt2img, inpaint]`" in refused.value.hint

    written = defined("painter", modality=["txt2img", "inpaint"])
    catalog = Catalog(offered(painter={DRAW}), [written])

    assert catalog.resolve(fill_in) == "painter"
    assert catalog.resolve(draw()) == "painter"


@pytest.mark.parametrize("modality", sorted(set(Modality) - {EDIT, Modality.INPAINT}))
def test_where_no_model_serves_a_modality_the_hint_names_it(modality: Modality) -> None:
    uses = frozenset(Modality) - {modality}

    with pytest.raises(UnknownModel, match=f"no model for {modality} is offered") as refused:
        Catalog(offered(other=uses)).resolve(small(REQUESTS[modality]))

    assert f"`modality: {modality}`" in refused.value.hint
    assert "install one" in refused.value.hint
    assert Catalog(offered(other=uses)).models(modality) == []


@pytest.mark.parametrize("modality", Modality)
def test_a_model_that_is_offered_for_a_modality_serves_it(modality: Modality) -> None:
    request = small(REQUESTS[modality])

    assert Catalog(offered(m={modality})).resolve(request) == "m"
    assert Catalog(offered(m=None), [defined("m", modality=modality)]).resolve(request) == "m"


@pytest.mark.parametrize(
    ("defaults", "says"),
    [
        ({"colour": "red"}, "no request has an option 'colour'"),
        ({"prompt": "always the same"}, "no request has an option 'prompt'"),
        ({"steps": 9999}, "steps: Input should be less than or equal to 150"),
        ({"temperature": "hot"}, "temperature: Input should be a valid number"),
        ({"format": "ogg"}, "format: Input should be 'wav', 'mp3'"),
        ({"num_frames": 0}, "num_frames: Input should be greater than or equal to 1"),
        ({"width": 4096, "height": 4096}, "Value error, size must be at most"),
    ],
)
def test_defaults_must_be_options_within_their_range(
    defaults: dict[str, object], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        defined("m", defaults=defaults)


def test_a_name_that_is_not_offered_gets_the_nearest_ones() -> None:
    catalog = Catalog(offered(llama={CHAT}, lama={CHAT}, flux={DRAW}))

    with pytest.raises(UnknownModel) as misspelt:
        catalog.resolve(chat(model="lamma"))
    with pytest.raises(UnknownModel) as strange:
        catalog.resolve(chat(model="../../etc/passwd"))
    with pytest.raises(UnknownModel) as nothing:
        Catalog([]).resolve(chat(model="m"))

    assert set(misspelt.value.nearest) == {"llama", "lama"}
    assert strange.value.nearest == ("lama", "llama")
    assert "passwd" not in str(strange.value) + strange.value.hint
    assert nothing.value.hint == "no model is offered"


def test_a_model_for_something_else_is_refused_with_what_would_do() -> None:
    catalog = Catalog(offered(flux={DRAW}, llama={CHAT}, idle=set()))

    with pytest.raises(UnknownModel, match="flux is not for txt2txt") as wrong:
        catalog.resolve(chat(model="flux"))
    with pytest.raises(UnknownModel) as unmapped:
        catalog.resolve(edit(model="idle"))

    assert wrong.value.hint == "models for it: llama"
    assert "`name: idle`" in unmapped.value.hint


def test_where_no_model_draws_parts_anew_another_way_is_named() -> None:
    catalog = Catalog(offered(flux={DRAW, EDIT}))

    for name in (None, "flux"):
        with pytest.raises(UnknownModel) as refused:
            catalog.resolve(small(REQUESTS[Modality.INPAINT]).model_copy(update={"model": name}))
        assert refused.value.hint.endswith(
            "without a mask the whole picture is changed, by img2img"
        )


def test_strength_needs_a_backend_that_reads_it() -> None:
    models = offered(fixed={EDIT}, free={EDIT})
    catalog = Catalog(models, [defined("free", strength=True), defined("fixed")])

    assert catalog.resolve(edit(model="free", strength=0.5)) == "free"
    assert catalog.resolve(edit(model="fixed")) == "fixed"
    for where in (catalog, Catalog(models)):
        with pytest.raises(InvalidInput) as refused:
            where.resolve(edit(model="fixed", strength=0.5))
        assert refused.value.param == "strength"


def test_what_the_caller_left_out_comes_from_the_definition() -> None:
    definition = defined("m", defaults={"steps": 4, "width": 768, "temperature": 0.5})
    catalog = Catalog(offered(m={DRAW}), [definition, defined("plain")])

    filled = catalog.with_defaults(draw(width=512), "m")

    assert filled == draw(width=512, steps=4)
    assert catalog.with_defaults(chat(), "m") == chat(temperature=0.5)
    assert catalog.with_defaults(chat(temperature=0), "m") == chat(temperature=0)


@pytest.mark.parametrize("model", ["plain", "undefined", "full"])
def test_a_request_that_needs_nothing_stays_as_it_is(model: str) -> None:
    catalog = Catalog([], [defined("plain"), defined("full", defaults={"steps": 4})])
    request = draw(steps=9)

    assert catalog.with_defaults(request, model) is request


DEFAULTS: dict[Modality, dict[str, Any]] = {
    Modality.TXT2TXT: {"max_tokens": 100, "stop": ["END"]},
    Modality.TXT2IMG: {"steps": 4, "negative_prompt": "blurry"},
    Modality.IMG2IMG: {"width": 256, "strength": 0.5},
    Modality.IMG2TXT: {"temperature": 0.25},
    Modality.AUDIO2TXT: {"language": "en", "translate": True, "temperature": 0.25},
    Modality.TXT2AUDIO: {"voice": "ann", "format": "mp3", "speed": 1.5, "instructions": "softly"},
    Modality.TXT2SOUND: {"seconds": 20.0, "instrumental": True, "bpm": 90},
    Modality.INPAINT: {"steps": 4},
    Modality.TXT2VIDEO: {"fps": 24, "num_frames": 48, "cfg_scale": 5.0, "width": 256},
    Modality.RERANK: {"top_n": 3},
}


@pytest.mark.parametrize("modality", Modality)
def test_the_options_of_every_modality_may_have_defaults(modality: Modality) -> None:
    kind, mine = REQUESTS[modality], DEFAULTS.get(modality, {})
    everything = {name: value for some in DEFAULTS.values() for name, value in some.items()}
    catalog = Catalog([], [defined("m", defaults=everything | mine)])

    own = {k: v for k, v in (everything | mine).items() if k in kind.model_fields}

    filled = catalog.with_defaults(small(kind), "m")

    assert mine.keys() <= own.keys()
    assert filled == small(kind, **own)


@pytest.mark.parametrize(
    "name",
    [
        *("model", "prompt", "messages", "question", "image", "images", "mask", "audio"),
        *("input", "query", "documents", "lyrics"),
    ],
)
def test_what_is_wanted_has_no_default(name: str) -> None:
    with pytest.raises(ValidationError, match=f"no request has an option '{name}'"):
        defined("m", defaults={name: "x"})


def test_defaults_that_do_not_fit_what_the_caller_gave_are_told() -> None:
    catalog = Catalog([], [defined("m", defaults={"width": 4096, "steps": 4})])

    with pytest.raises(
        InvalidInput, match="do not fit the request: size must be at most 16,000,000 pixels"
    ) as refused:
        catalog.with_defaults(draw(height=4096), "m")

    assert refused.value.hint == "its definition fills in steps, width"
    assert catalog.with_defaults(draw(height=512), "m") == draw(height=512, width=4096, steps=4)


def test_messages_survive_the_defaults() -> None:
    catalog = Catalog([], [defined("m", defaults={"stop": ["END"]})])
    request = Txt2TxtRequest.model_validate({"messages": [{"role": "system", "content": "x"}]})

    filled = catalog.with_defaults(request, "m")

    assert filled == request.model_copy(update={"stop": ["END"]})


def test_definitions_that_do_not_fit_the_offer_are_told() -> None:
    catalog = Catalog(offered(a={CHAT}, b=set()), [defined("gone"), defined("a")])

    assert list(catalog.mismatches()) == [
        "gone is defined but not offered by the backend",
        (
            "b is offered but serves no modality; "
            "a file in models/ with `name: b` and `modality:` says what it is for"
        ),
    ]


def test_a_definition_says_how_a_model_may_be_used() -> None:
    catalog = Catalog(None, [defined("m", parallel=4, weights_gb=7.5), defined("n")])

    assert catalog.limits() == {
        "m": ModelLimits(parallel=4, weights_gb=7.5),
        "n": ModelLimits(),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 257},
        {"modality": "txt2smell"},
        {"modality": ["txt2vec", "vec2txt"]},
        {"parallel": 0},
        {"parallel": 1025},
        {"weights_gb": 0},
        {"weights_gb": float("nan")},
        {"weights_gb": float("inf")},
        {"defaults": {"tempreature": 1}},
        {"defaults": {"steps": None}},
        {"colour": "red"},
    ],
)
def test_a_definition_with_a_slip_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelDefinition.model_validate({"name": "m", **wrong})


def test_the_reference_knows_localais_word_for_every_modality() -> None:
    page = Path(__file__).parents[2] / "docs/reference/model-definitions.md"
    table = re.findall(
        r"^ +\| (\w*2\w+|rerank|inpaint) \| (.+) \|$", page.read_text(), re.MULTILINE
    )

    assert sorted(modality for modality, _ in table) == sorted(Modality)
    for modality, words in table:
        inputs = frozenset({"image"} if "takes images" in words else ())
        offers = [modalities(frozenset({word}), inputs) for word in re.findall("`(.+?)`", words)]
        assert all(modality in offer for offer in offers)
        assert bool(offers) == (modality != Modality.INPAINT)


def test_a_model_of_two_backends_can_do_what_either_says() -> None:
    both = [OfferedModel("m", frozenset({CHAT})), OfferedModel("m", frozenset({DRAW}))]
    silent, told = OfferedModel("n", None), OfferedModel("n", frozenset({CHAT}))

    assert Catalog(both).modalities("m") == frozenset({CHAT, DRAW})
    assert Catalog([silent, told, silent]).modalities("n") == frozenset({CHAT})


def test_what_nobody_offers_may_yet_come_from_a_backend_that_was_not_reached() -> None:
    catalog = Catalog(offered(talker={CHAT}), unseen=["gpu2"])

    with pytest.raises(BackendUnseen, match="no backend that was reached") as named:
        catalog.resolve(chat(model="other"))
    with pytest.raises(BackendUnseen):
        catalog.resolve(draw())

    assert named.value.hint == "not reached yet: gpu2"
    assert named.value.retry_after
    assert catalog.resolve(chat()) == "talker"
