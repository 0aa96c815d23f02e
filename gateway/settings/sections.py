"""How a section of the settings is checked: keys, values and rules between keys, all at once."""

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails

from gateway.settings.values import did_you_mean, shown

Fault = tuple[tuple[str, ...], str]
"""Where, as keys below the section, and a sentence."""


class Section(BaseModel):
    """A mapping of known keys.

    Invariants: never changes; a key without value (`tls:`) counts as not given, because that is
    what is left when somebody comments out all lines below it; every fault is reported, not only
    those of the first kind found.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong between keys. `given` holds known keys, their values unchecked."""
        del given
        yield from ()

    @model_validator(mode="wrap")
    @classmethod
    def _check_all(cls, given: Any, build: ModelWrapValidatorHandler[Self]) -> Self:
        if given is None:
            given = {}
        if not isinstance(given, dict):
            return build(given)
        known = {k: v for k, v in given.items() if k in cls.model_fields and v is not None}
        faults = [_fault((str(k),), cls._unknown(k)) for k in given if k not in cls.model_fields]
        faults += [_fault(where, sentence) for where, sentence in cls.contradictions(known)]
        try:
            section = build(known)
        except ValidationError as error:
            # Pydantic would stop before the rules; raised from here, they get the same prefix.
            faults += [
                _again(details)
                for details in error.errors(include_url=False)
                if details["type"] != "default_factory_not_called"  # follows from another fault
            ]
            raise ValidationError.from_exception_data(cls.__name__, faults) from None
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return section

    @classmethod
    def _unknown(cls, key: object) -> str:
        allowed = tuple(cls.model_fields)
        near = did_you_mean(str(key), allowed) or ";"
        return f"unknown key{near} allowed: {', '.join(allowed)}"


def section_in(field: FieldInfo) -> tuple[type[Section] | None, bool]:
    """Return the section that a key holds, if any, and whether users name several of them."""
    kind = field.annotation
    is_named = get_origin(kind) is dict
    if is_named:
        kind = get_args(kind)[1]
    if isinstance(kind, UnionType):  # a section that may be left out
        kind = next((one for one in get_args(kind) if one is not NoneType), None)
    return (kind if isinstance(kind, type) and issubclass(kind, Section) else None), is_named


def listed_section(field: FieldInfo) -> type[Section] | None:
    """Return the section that a key holds a list of, if it does."""
    kinds = get_args(field.annotation) if get_origin(field.annotation) is tuple else ()
    kind = kinds[0] if kinds else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _fault(where: tuple[str, ...], sentence: str) -> InitErrorDetails:
    return InitErrorDetails(
        type="value_error", loc=where, input=None, ctx={"error": ValueError(sentence)}
    )


def _again(details: ErrorDetails) -> InitErrorDetails:
    return InitErrorDetails(
        type=details["type"],
        loc=details["loc"],
        input=details["input"],
        ctx=details.get("ctx", {}),
    )


def sentence_of(details: ErrorDetails) -> str:
    """Return what is wrong in our words; the value is part of it unless it may be a secret."""
    match details["type"]:
        case "value_error":
            return str(details["ctx"]["error"])
        case "missing":
            return "required, but not given"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "not a mapping; write keys and values below it, indented"
        case "tuple_type":
            return f"{shown(details['input'])} is not a list; use [one, two]"
        case "bool_type" | "bool_parsing":
            return f"{shown(details['input'])} is neither true nor false; use one of them"
        case "literal_error":
            value, expected = details["input"], details["ctx"]["expected"]
            allowed = tuple(expected.replace("'", "").replace(" or ", ", ").split(", "))
            near = did_you_mean(str(value), allowed)
            return f"{shown(value)} is not one of {', '.join(allowed)}{near}"
        case _:
            return "not a value that this key can have; see config/README.md"
