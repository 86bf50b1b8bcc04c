"""Words of texts as full-text search takes them: a query is text and never syntax."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

__all__ = ["MOST_WORDS", "index_words", "query_words", "spaced"]

# A query's further words are left out.
MOST_WORDS = 32
_MOST_CHARACTERS = 10_000

# Scripts that are written without spaces between words: Han, Hiragana, Katakana, Hangul.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
_LETTER = re.compile(f"([{_UNSPACED}])")
# The blocks of these scripts have marks in them, such as the dot between foreign names, and places without a letter.
_WORD = re.compile(f"(?:(?=\\w)[{_UNSPACED}])+|[^\\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def spaced(text: str) -> str:
    """Give a text as it is indexed: letters of scripts without spaces stand apart, as words of their own.

    Case is folded as in a query's words: an index that knows small letters alone takes "ß" and "ss" for two.
    """
    return _LETTER.sub(r" \1 ", text.casefold()).replace("\x00", " ")


def index_words(text: str) -> str:
    """Give the words of a text alone, without accents, for an index that would take marks between them for something."""
    bare = "".join(one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return " ".join(_WORD.findall(spaced(unicodedata.normalize("NFC", bare))))


def query_words(text: str) -> list[str]:
    """Give the distinct words of a query, each as a phrase of the index: letters and digits with spaces between.

    A run of letters of a script without spaces becomes its pairs of neighbours, which is how such text is found
    without a dictionary; a letter that stands alone stays one.

    Args:
        text: the query; what comes after 10,000 characters, and after 32 words, is left out.
    """
    words: dict[str, None] = {}
    for match in _WORD.finditer(text[:_MOST_CHARACTERS]):
        word = match.group()
        if len(word) > 1 and _IS_UNSPACED.match(word):
            for first, second in pairwise(word):
                words[f"{first} {second}"] = None
        else:
            words[word.casefold()] = None
        if len(words) >= MOST_WORDS:
            break
    return list(words)[:MOST_WORDS]
