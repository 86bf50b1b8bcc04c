"""What steps take and give: whether two types fit, whether a value is of one, and how values are stored and read."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, cast, get_args, get_origin

import msgspec

from gossamer.schema import decode_unsupported, encode_unsupported

__all__ = ["Check", "Named", "check_of", "fits", "item_of", "name_of", "read", "store", "union_of"]

# Gives a value as its type has it, which is the value itself nearly always; raises ValueError with what does not fit.
Check = Callable[[Any], Any]

_UNIONS = (Union, types.UnionType)
_LARGEST = 2**63 - 1
_LISTS: dict[Any, Any] = {
    list: list,
    Sequence: list,
    Iterable: list,
    Collection: list,
    tuple: tuple,
    set: set,
}
_NUMBERS = {(bool, int), (bool, float), (int, float)}


class Named(str):
    """What people are told in place of a long type: `Annotated[…, Named("a prompt")]`."""

    __slots__ = ()


def name_of(type_: Any) -> str:
    """Give a type as people write it."""
    if type_ is None or type_ is type(None):
        return "None"
    if get_origin(type_) is Annotated and isinstance(type_.__metadata__[0], Named):
        return type_.__metadata__[0]
    if isinstance(type_, type) and get_origin(type_) is None:
        return type_.__name__
    return str(type_).replace("typing.", "")


def union_of(members: Sequence[Any]) -> Any:
    """Give the union of types; Any where one of them is not known."""
    if not members or any(member is Any for member in members):
        return Any
    result: Any = members[0]
    for member in members[1:]:
        if member != result:
            try:
                result = result | member
            except TypeError:  # a type that cannot be part of one, such as a forward reference
                return Any
    return result


def item_of(type_: Any) -> Any:
    """Give the type of the items of a sequence; Any where it is not known, None where the type is no sequence."""
    type_ = _bare(type_)
    if type_ is Any:
        return Any
    if get_origin(type_) in _UNIONS:
        items = [item_of(member) for member in get_args(type_)]
        return None if any(item is None for item in items) else union_of(items)
    origin = get_origin(type_) or type_
    if not isinstance(origin, type):
        return Any
    if issubclass(origin, str | bytes | Mapping) or not issubclass(origin, Sequence):
        # A type that a list may be, such as Iterable, is as good as unknown.
        return Any if _is_subclass(list, cast("type", origin)) else None
    arguments = get_args(type_)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return union_of(arguments)
    return arguments[0] if arguments else Any


def fits(given: Any, wanted: Any) -> bool:
    """Tell whether a value of one type can be taken for another; True wherever that is not known."""
    given, wanted = _bare(given), _bare(wanted)
    if given is Any or wanted in {Any, object} or given == wanted:
        return True
    if get_origin(given) in _UNIONS:
        return all(fits(member, wanted) for member in get_args(given))
    if get_origin(wanted) in _UNIONS:
        return any(fits(given, member) for member in get_args(wanted))
    if get_origin(given) is Literal:
        if get_origin(wanted) is Literal:
            return set(get_args(given)) <= set(get_args(wanted))
        return all(fits(type(value), wanted) for value in get_args(given))
    if get_origin(wanted) is Literal:
        return False
    from_, to = _class_of(given), _class_of(wanted)
    if not isinstance(from_, type) or not isinstance(to, type):
        return True
    if not _is_subclass(from_, to) and (from_, to) not in _NUMBERS:
        return False
    ours, theirs = get_args(given), get_args(wanted)
    if not ours or not theirs:
        return True
    if issubclass(from_, tuple):
        return _tuple_fits(ours, to, theirs)
    return len(ours) != len(theirs) or all(fits(one, other) for one, other in zip(ours, theirs, strict=True))


def _tuple_fits(ours: tuple[Any, ...], to: type, theirs: tuple[Any, ...]) -> bool:
    items = [one for one in ours if one is not Ellipsis]
    if not issubclass(to, tuple):  # Sequence[X] and the like
        return all(fits(one, theirs[0]) for one in items)
    if Ellipsis in theirs:
        return all(fits(one, theirs[0]) for one in items)
    if Ellipsis in ours:
        return True
    return len(ours) == len(theirs) and all(fits(one, other) for one, other in zip(ours, theirs, strict=True))


def _bare(type_: Any) -> Any:
    """Take off what does not change which values a type has."""
    while True:
        if type_ is None:
            return type(None)
        if get_origin(type_) is Annotated:
            type_ = get_args(type_)[0]
        elif isinstance(type_, NewType):
            type_ = type_.__supertype__
        elif isinstance(type_, TypeVar | str):
            return Any
        else:
            return type_


def _class_of(type_: Any) -> Any:
    if typing.is_typeddict(type_):
        return type_  # a class of its own to `isinstance`, and none to `issubclass`
    return get_origin(type_) or type_


def _is_subclass(one: type, other: type) -> bool:
    if typing.is_typeddict(one) or typing.is_typeddict(other):
        # Only a dict of unknown fields may turn out to be one.
        return one is other or (typing.is_typeddict(one) and other in {dict, Mapping})
    try:
        return issubclass(one, other)
    except TypeError:  # a protocol that does not tell
        return True


# --- values -------------------------------------------------------------------------------------------------


def check_of(type_: Any) -> Check | None:
    """Give what checks values of a type; None where any value will do. Built once a type."""
    try:
        return _check_of(type_)
    except TypeError:  # not hashable
        return _check_of.__wrapped__(type_)


@functools.lru_cache(maxsize=1024)
def _check_of(type_: Any) -> Check | None:
    type_ = _bare(type_)
    if type_ is Any or type_ is object:
        return None
    origin = get_origin(type_)
    if origin in _UNIONS:
        return _one_of([check_of(member) for member in get_args(type_)], type_)
    if isinstance(type_, type) and origin is None and not typing.is_typeddict(type_):
        return _instance_of(type_)
    return _converted_to(type_)


def _refusal(value: Any, type_: Any) -> ValueError:
    return ValueError(f"{name_of(type_)} is declared, and this is {name_of(type(value))}: {value!r:.200}")


def _instance_of(type_: type) -> Check:
    from_dict = dataclasses.is_dataclass(type_) or issubclass(type_, msgspec.Struct)

    def check(value: Any) -> Any:
        if type(value) is type_ or (isinstance(value, type_) and type(value) is not bool):
            return value
        if type_ is float and type(value) is int:
            return float(value)
        if from_dict and type(value) is dict:
            return _convert(value, type_)
        if not _is_protocol(cast("type", type_)):
            raise _refusal(value, type_)
        return value

    return check


def _is_protocol(type_: type) -> bool:
    """Whether a class is a protocol that cannot be checked at run time."""
    return bool(getattr(type_, "_is_protocol", False)) and not getattr(type_, "_is_runtime_protocol", False)


def _converted_to(type_: Any) -> Check:
    origin = get_origin(type_)

    def check(value: Any) -> Any:
        if isinstance(origin, type) and isinstance(value, str | bytes) and not isinstance(value, origin):
            raise _refusal(value, type_)
        converted = _convert(value, type_)
        return value if type(converted) is type(value) else converted

    return check


def _convert(value: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(value, type_, dec_hook=_instance)
    except msgspec.ValidationError as error:
        raise ValueError(f"{error}; {name_of(type_)} is declared, and this is {value!r:.200}") from error
    except (TypeError, NotImplementedError) as error:  # a type that msgspec does not know
        origin = get_origin(type_)
        if isinstance(origin, type) and not isinstance(value, origin):
            raise _refusal(value, type_) from error
        return value


def _instance(type_: Any, value: Any) -> Any:
    if hasattr(type_, "__pydantic_validator__") and type(value) is dict:
        return type_.model_validate(value)
    origin = get_origin(type_) or type_
    if isinstance(origin, type) and not isinstance(value, origin):
        raise ValueError(f"{name_of(type_)} is wanted, not {name_of(type(value))}")  # noqa: TRY004 - msgspec's contract
    return value


def _one_of(checks: Sequence[Check | None], type_: Any) -> Check | None:
    known = [check for check in checks if check is not None]
    if len(known) < len(checks):
        return None

    def check(value: Any) -> Any:
        fallback: Any = _NOTHING
        for one in known:
            try:
                checked = one(value)
            except ValueError:
                continue
            if checked is value:
                return value
            fallback = checked if fallback is _NOTHING else fallback
        if fallback is _NOTHING:
            raise _refusal(value, type_)
        return fallback

    return check


_NOTHING = object()


# --- in a journal -------------------------------------------------------------------------------------------

_encoder = msgspec.json.Encoder(enc_hook=encode_unsupported)


def store(value: Any, type_: Any) -> Any:
    """Give a value as JSON data, from which `read` will give an equal one.

    Args:
        value: the value.
        type_: the type that is declared for it, or Any.

    Raises:
        ValueError: it has no JSON form, or would not come back as it is; the text says what to do.
    """
    kind: Any = value.__class__
    if value is None or kind is bool or (kind is int and -_LARGEST <= value <= _LARGEST):
        return value
    if (kind is str and value.isascii()) or (kind is float and math.isfinite(value)):
        return value
    try:
        data = _encoder.encode(value)
        plain = msgspec.json.decode(data)
        again = read(plain, type_)
        same = again.__class__ is kind and (
            again == value or (_cannot_compare(type_) and _encoder.encode(again) == data)
        )
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
        raise ValueError(
            f"{value!r:.200} cannot be stored: {error}. Return JSON data, a dataclass or a Struct, and declare its type"
        ) from error
    if not same:
        known = "no type is declared" if type_ is Any else f"{name_of(type_)} is declared"
        raise ValueError(
            f"a {name_of(type(value))} would come back from the store as something else, as {known}: {value!r:.200}. "
            "Declare the type that it has, or return plain JSON data"
        )
    return plain


def _cannot_compare(type_: Any) -> bool:
    """Whether two equal values of a type may say that they are not: those of structs and dataclasses with `eq=False`."""
    bare: Any = _bare(type_)
    arguments = get_args(bare)
    if arguments:
        return any(_cannot_compare(one) for one in arguments if one is not Ellipsis)
    options = getattr(bare, "__struct_config__", None) or getattr(bare, "__dataclass_params__", None)
    return options is not None and not options.eq


def read(data: Any, type_: Any) -> Any:
    """Give the value that was stored as JSON data.

    Raises:
        ValueError: it does not fit the type.
    """
    type_ = _bare(type_)
    if type_ is Any or (data is None and fits(type(None), type_)):
        return data
    if get_origin(type_) in _UNIONS:
        return _read_one_of(data, type_)
    try:
        return msgspec.convert(data, type_, str_keys=True, dec_hook=decode_unsupported)
    except (TypeError, NotImplementedError) as error:
        if isinstance(type_, type) and isinstance(data, type_):
            return data
        if (
            isinstance(data, list) and (made := _LISTS.get(get_origin(type_))) is not None
        ):  # of such unions, say
            item = item_of(type_)
            return made(read(one, item) for one in cast("list[Any]", data))
        raise ValueError(f"{name_of(type_)} cannot be read from JSON: {error}") from error


def _read_one_of(data: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(data, type_, str_keys=True, dec_hook=decode_unsupported)
    except (TypeError, NotImplementedError):  # several structs, say, of which msgspec cannot tell which
        error: ValueError | None = None
        for member in get_args(type_):
            try:
                return read(data, member)
            except ValueError as refused:
                error = refused
        raise error or ValueError(f"{name_of(type_)} cannot be read from JSON") from None
