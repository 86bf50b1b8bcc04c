"""Personal data in texts: found by its form and its check digits, then blotted out or refused."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

from gossamer.context import RunContext
from gossamer.errors import ArgumentError, GuardrailError
from gossamer.guardrails.base import Guardrail, Place

__all__ = ["PersonalData", "pii"]

PersonalData: TypeAlias = Literal["email", "phone", "credit_card", "iban", "us_ssn", "ip_address"]

_ALL: tuple[PersonalData, ...] = get_args(PersonalData)


def pii(
    *kinds: PersonalData,
    action: Literal["redact", "refuse"] = "redact",
    on: Sequence[Place] = ("input", "output"),
    hold_back: bool | None = None,
    name: str = "pii",
) -> Guardrail:
    """Blot out personal data, or refuse texts that hold some.

    Looks for what has a form: addresses, numbers, accounts. Names and places have none; a `judge` finds those.

    Args:
        *kinds: what to look for; all kinds where none is given.
        action: `redact` puts `[email]` and the like in its place; `refuse` stops the run and says which kinds were
            found, never what.
        on: what is checked.
        hold_back: see `Guardrail`; where None, answers are held back if they are to be redacted.
        name: the guardrail's name.

    Raises:
        ArgumentError: no such kind or action.
    """
    unknown = [kind for kind in kinds if kind not in _ALL]
    if unknown:
        raise ArgumentError(f"pii knows {', '.join(_ALL)}, not {', '.join(map(str, unknown))}")
    if action not in {"redact", "refuse"}:
        raise ArgumentError(f"action must be 'redact' or 'refuse', not {action!r}")
    wanted = [(kind, *form) for kind, form in _FORMS.items() if not kinds or kind in kinds]

    def redact(_: RunContext[Any], text: str) -> str | None:
        found = False
        for kind, pattern, is_one in wanted:

            def blot(match: re.Match[str], kind: str = kind, is_one: Callable[[str], bool] = is_one) -> str:
                nonlocal found
                if not is_one(match[0]):
                    return match[0]
                found = True
                return f"[{kind}]"

            text = pattern.sub(blot, text)
        return text if found else None

    def refuse(_: RunContext[Any], text: str) -> None:
        found = [
            kind
            for kind, pattern, is_one in wanted
            if any(is_one(match[0]) for match in pattern.finditer(text))
        ]
        if found:
            raise GuardrailError(f"it holds personal data: {', '.join(found)}")

    if hold_back is None:
        hold_back = action == "redact" and "output" in on
    return Guardrail(name, redact if action == "redact" else refuse, on, hold_back=hold_back)


def _any(_: str) -> bool:
    return True


def _digits(text: str) -> list[int]:
    return [int(letter) for letter in text if letter.isdecimal()]


def _is_card(text: str) -> bool:
    """Luhn's check, ISO/IEC 7812-1."""
    digits = _digits(text)
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and any(digits)


def _is_iban(text: str) -> bool:
    """The check of ISO 13616: 97 leaves 1."""
    code = "".join(text.split())
    if not 15 <= len(code) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in code[4:] + code[:4])) % 97 == 1


def _is_phone(text: str) -> bool:
    """As many digits as ITU-T E.164 allows; without a plus or an area in brackets, in a form that dates do not have."""
    digits = len(_digits(text))
    if text[0] in "+(":
        return 7 <= digits <= 15
    return (text[0] == "0" and 10 <= digits <= 15) or _NORTH_AMERICAN.fullmatch(text) is not None


_NORTH_AMERICAN = re.compile(r"(?:1[ .-])?\d{3}[ .-]\d{3}[ .-]\d{4}")


def _is_ssn(text: str) -> bool:
    area, group, serial = text.split("-")
    return area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"


def _is_ip(text: str) -> bool:
    if ":" in text and sum(map(bool, text.split(":"))) < 3:  # `std::io` is none
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# In the order in which they are looked for: an account before the phone number that its digits could be. No pattern
# has nested repetition, so that each search takes linear time.
_FORMS: dict[PersonalData, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), _any),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban),
    "credit_card": (re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)"), _is_card),
    "us_ssn": (re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), _is_ssn),
    "ip_address": (
        re.compile(
            r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?![\w.:])"
        ),
        _is_ip,
    ),
    "phone": (re.compile(r"(?<![\w.+-])(?:\+\d|\(\d|\d)[\d ()/.-]{5,20}\d(?![\w-])"), _is_phone),
}
