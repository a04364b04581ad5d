"""Which model serves which modality: what the backends offer, refined by model definitions."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .capacity import ModelLimits
from .errors import BackendUnseen, InvalidInput, UnknownModel
from .modality import Modality
from .ports import OfferedModel
from .queues import model_sets
from .requests import MEDIA, REQUESTS, Img2ImgRequest, InferenceRequest

_CONTENT = frozenset({"model", "question", "lyrics", *MEDIA}).union(
    name
    for request in REQUESTS.values()
    for name, field in request.model_fields.items()
    if field.is_required()
)
"""Fields that say what is wanted rather than how; no definition gives them a default."""
_NEVER_REPORTED = (Modality.IMG2IMG, Modality.INPAINT)
_INSTEAD = {Modality.INPAINT: "; without a mask the whole picture is changed, by img2img"}


_UNSEEN_S = 10.0


class ModelDefinition(BaseModel):
    """One file of `models/`: what an operator knows of a model that its backend does not say.

    Everything but the name may be left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1, max_length=256)]
    modality: frozenset[Modality] = Field(
        default=frozenset(), description="One modality or a list; empty: what the backend says"
    )
    default: bool = Field(default=False, description="Preferred where a request names no model")
    defaults: dict[str, str | int | float | bool | list[str]] = Field(
        default={}, description="Request fields used where a caller gives none"
    )
    parallel: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="Attempts that may run at once"
    )
    weights_gb: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="Room it takes in memory, in GB"
    )
    strength: bool = Field(default=False, description="The backend reads img2img's `strength`")

    @field_validator("modality", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("defaults")
    @classmethod
    def _defaults_fit(cls, value: dict[str, object]) -> dict[str, object]:
        known = {name for request in REQUESTS.values() for name in request.model_fields}
        if unknown := sorted(value.keys() - (known - _CONTENT)):
            raise ValueError(f"no request has an option {unknown[0]!r}")
        for request in REQUESTS.values():
            own = {k: v for k, v in value.items() if k in request.model_fields}
            try:
                request.model_validate(_smallest(request) | own)
            except ValidationError as error:
                raise ValueError(_told(error)) from None
        return value

    @property
    def limits(self) -> ModelLimits:
        """How the model may be used."""
        return ModelLimits(parallel=self.parallel, weights_gb=self.weights_gb)


class Catalog:
    """The models that can be asked for. A value: a new offer makes a new catalogue.

    `offered` is None until a backend has said what it has; until then every name is accepted,
    and the jobs wait. A model that several backends have can do all that any of them says.

    Args:
        offered: what the backends that were reached have.
        definitions: what operators know of models.
        unseen: the backends that were not reached yet: they may have more.

    """

    def __init__(
        self,
        offered: Sequence[OfferedModel] | None = None,
        definitions: Iterable[ModelDefinition] = (),
        *,
        unseen: Sequence[str] = (),
    ) -> None:
        self._unseen = unseen
        self.known = offered is not None
        self.definitions: Mapping[str, ModelDefinition] = {d.name: d for d in definitions}
        self._offered: dict[str, OfferedModel] = {}
        for model in offered or ():
            self._offered[model.name] = _both(self._offered.get(model.name), model)
        self._suited = {modality: self._suited_for(modality) for modality in Modality}

    @property
    def names(self) -> Sequence[str]:
        """Every model that is offered, by name."""
        return sorted(self._offered)

    @property
    def unsaid(self) -> Sequence[str]:
        """The models of which nobody says what they are for: they serve who names them."""
        return [name for name in self.names if self.modalities(name) is None]

    def modalities(self, name: str) -> frozenset[Modality] | None:
        """Return what a model is for; None when nobody says, empty when it is for nothing."""
        definition = self.definitions.get(name)
        if definition is not None and definition.modality:
            return definition.modality
        declared = frozenset(m for m, names in model_sets.items() if name in names)
        offered = self._offered.get(name)
        said = offered.modalities if offered is not None else None
        return declared or None if said is None else said | declared

    def models(self, modality: Modality) -> Sequence[str]:
        """Return the models for a modality; the first is the default one."""
        return self._suited[modality]

    def limits(self) -> Mapping[str, ModelLimits]:
        """Return how each defined model may be used."""
        return {name: definition.limits for name, definition in self.definitions.items()}

    def resolve(self, request: InferenceRequest) -> str | None:
        """Return the model that will serve the request, or None while no model is known.

        Raises:
            UnknownModel: it is not offered, or not for this modality.
            BackendUnseen: it is not offered by the backends that were reached so far.
            InvalidInput: the model cannot do what the request asks for.

        """
        modality, name = request.modality, request.model
        if not self.known:
            return name
        suited = self.models(modality)
        if self._unseen and (name not in self._offered if name else not suited):
            raise BackendUnseen(
                "no backend that was reached so far offers this model",
                hint=f"not reached yet: {', '.join(self._unseen)}",
                retry_after=_UNSEEN_S,
            )
        if name is None and not suited:
            hint = self._how_to_map(modality) + _INSTEAD.get(modality, "")
            raise UnknownModel(f"no model for {modality} is offered", hint=hint)
        name = name or suited[0]
        uses = self.modalities(name)
        if name not in self._offered:
            nearest = get_close_matches(name, self._offered, n=5, cutoff=0.5) or suited[:5]
            hint = f"nearest names: {', '.join(nearest)}" if nearest else "no model is offered"
            raise UnknownModel("the backend does not offer this model", nearest=nearest, hint=hint)
        if uses is not None and modality not in uses:
            hint = f"models for it: {', '.join(suited[:5])}" if suited else self._define(name)
            hint += _INSTEAD.get(modality, "")
            raise UnknownModel(
                f"the model {name} is not for {modality}", nearest=suited[:5], hint=hint
            )
        if isinstance(request, Img2ImgRequest) and request.strength is not None:
            self._check_strength(name)
        return name

    def with_defaults(self, request: InferenceRequest, model: str) -> InferenceRequest:
        """Fill in the fields that the caller left out and the model's definition gives.

        Raises:
            InvalidInput: they do not fit what the caller gave.

        """
        definition = self.definitions.get(model)
        if definition is None or not definition.defaults:
            return request
        fields = type(request).model_fields
        given = request.model_fields_set
        missing = {k: v for k, v in definition.defaults.items() if k in fields and k not in given}
        if not missing:
            return request
        filled = {**{k: getattr(request, k) for k in given}, **missing}
        try:
            return type(request).model_validate(filled)
        except ValidationError as error:
            names = sorted(missing)
            raise InvalidInput(
                f"the model's defaults do not fit the request: {_told(error)}",
                param=names[0],
                hint=f"its definition fills in {', '.join(names)}",
            ) from None

    def mismatches(self) -> Sequence[str]:
        """Say in words where the definitions and the offer do not fit together."""
        missing = [
            f"{name} is defined but not offered by the backend"
            for name in sorted(self.definitions.keys() - self._offered.keys())
        ]
        unmapped = [
            f"{name} is offered but serves no modality; {self._define(name)}"
            for name in self.names
            if self.modalities(name) == frozenset()
        ]
        return [*missing, *unmapped] if self.known else []

    def _suited_for(self, modality: Modality) -> Sequence[str]:
        return sorted(
            (name for name in self._offered if modality in (self.modalities(name) or ())),
            key=lambda name: (not self._is_default(name), name),
        )

    def _is_default(self, name: str) -> bool:
        definition = self.definitions.get(name)
        return definition is not None and definition.default

    def _check_strength(self, name: str) -> None:
        definition = self.definitions.get(name)
        if definition is None or not definition.strength:
            raise InvalidInput(
                "this model's backend has a fixed strength",
                param="strength",
                hint="leave strength out, or set `strength: true` in the model's definition",
            )

    def _define(self, name: str) -> str:
        return f"a file in models/ with `name: {name}` and `modality:` says what it is for"

    def _how_to_map(self, modality: Modality) -> str:
        if unsaid := self.unsaid:
            return (
                f"nobody says what these are for: {', '.join(unsaid[:5])}; name one in `model`, or "
                f"add a file to models/ with `name:` and `modality: {modality}`"
            )
        if modality in _NEVER_REPORTED:
            return (
                "LocalAI does not say which models change pictures: add a file to models/ with "
                f"`name:` of one that draws and `modality: [txt2img, {modality}]`"
            )
        return (
            f"install one in the backend, or add a file to models/ with `name:` and "
            f"`modality: {modality}`"
        )


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    return ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])


def _smallest(request: type[InferenceRequest]) -> dict[str, object]:
    """Return the least that makes a valid request."""
    return {
        name: [{"content": "?"}]
        if name == "messages"
        else "?"
        if field.annotation is str
        else ["?"]
        for name, field in request.model_fields.items()
        if field.is_required()
    }


def _both(one: OfferedModel | None, other: OfferedModel) -> OfferedModel:
    """Put together what two backends say of a model."""
    if one is None or one.modalities is None:
        return other
    if other.modalities is None:
        return one
    return OfferedModel(one.name, one.modalities | other.modalities)
