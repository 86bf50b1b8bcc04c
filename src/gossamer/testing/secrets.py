"""Keys and tokens, taken out of what is written to a file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from gossamer.schema import is_array, is_object

__all__ = ["REMOVED", "Secrets"]

REMOVED = "[removed]"

_SECRET_HEADER = re.compile(r"authorization|cookie|key|token|secret|password|signature", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"(api)?key|token|secret|password|sig(nature)?", re.IGNORECASE)
# Only names that are certain: an argument of a tool may be called `key` or `token`, and its value be any word.
_SECRET_FIELD = re.compile(
    r"authorization([_-]?token)?|(x[_-])?api[_-]?key|access[_-]?token|client[_-]?secret|password",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)$")
# Words that keys begin with, as OpenAI and many others, Google, Groq, xAI, Hugging Face, GitHub and AWS give them out.
_LOOKS_SECRET = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{8,}|AIza[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{16,}|xai-[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|AKIA[A-Z0-9]{12,})|(?<=\bBearer )[A-Za-z0-9._~+/=-]{8,}"
)
# A shorter value is a word that may stand anywhere.
_LEAST_SECRET_CHARS = 8


class Secrets:
    """What must not be written: the values of secret headers, parameters and environment variables of this process.

    Beside those values, whatever looks like a key is taken out.
    """

    __slots__ = ("_pattern", "_values")

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern = _LOOKS_SECRET
        self._add(value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name.upper()))

    def learn(self, headers: Mapping[str, str], query: str) -> None:
        """Take in what the headers and the query of a request hold."""
        found = [value for name, value in headers.items() if _SECRET_HEADER.search(name)]
        found += [value.partition(" ")[2] for value in found]
        found += [value for name, value in parse_qsl(query) if _SECRET_PARAMETER.fullmatch(_last_word(name))]
        self._add(found)

    def learn_fields(self, data: Any) -> None:
        """Take in what fields of a request's JSON hold that are named as secrets, such as those of a remote tool."""
        if is_array(data):
            for item in data:
                self.learn_fields(item)
        elif is_object(data):
            for name, item in data.items():
                if isinstance(item, str) and _SECRET_FIELD.fullmatch(name):
                    self._add([item, item.partition(" ")[2]])
                else:
                    self.learn_fields(item)

    def remove(self, value: Any) -> Any:
        """Give JSON data, or text, with secrets taken out of all of its texts and names."""
        if isinstance(value, str):
            return self._pattern.sub(REMOVED, value)
        if is_array(value):
            return [self.remove(item) for item in value]
        if is_object(value):
            return {self.remove(name): self.remove(item) for name, item in value.items()}
        return value

    def remove_from_query(self, query: str) -> str:
        """Give an encoded query without the parameters that are secrets."""
        kept = [
            pair
            for pair in query.split("&")
            if pair and not _SECRET_PARAMETER.fullmatch(_last_word(pair.partition("=")[0]))
        ]
        return self.remove("&".join(kept))

    def _add(self, values: Iterable[str]) -> None:
        known = len(self._values)
        self._values.update(value for value in values if len(value) >= _LEAST_SECRET_CHARS)
        if len(self._values) > known:
            longest_first = sorted(self._values, key=len, reverse=True)
            exact = "|".join(re.escape(value) for value in longest_first)
            self._pattern = re.compile(f"{exact}|{_LOOKS_SECRET.pattern}")


def _last_word(name: str) -> str:
    """The last word of a parameter's name: of `api_key`, `access-token` and `X-Goog-Api-Key` the one that tells."""
    return re.split(r"[-_.]", name)[-1]
