"""Text out of bytes of the web: which charset, and HTML as Markdown. Everything here may take long: run it in a thread."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import msgspec

from gossamer.errors import ToolkitError
from gossamer.tools.builtin import html_reader
from gossamer.tools.builtin.html_reader import page_of

__all__ = ["check_library", "decode_text", "read_page", "text_of_fragment"]

_META_BYTES = 4_096
_MAX_THREAD_CHARS = 100_000  # a hostile page of this size takes a second

_META_CHARSET = re.compile(rb"<meta[^>]{1,500}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{1,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.IGNORECASE)
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

# Python's names of the charsets that pages are written in, and what browsers read in place of some of them.
_CHARSETS = frozenset(
    {
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "koi8-r",
        "koi8-u",
        "mac-roman",
        "mac-cyrillic",
    }
    | {"gb18030", "big5hkscs", "euc_jp", "iso2022_jp", "cp932", "cp949", "cp866", "cp874"}
    | {f"cp125{number}" for number in range(9)}
    | {f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)}
)
_OTHER_NAMES = {"windows-31j": "cp932", "windows-874": "cp874", "x-gbk": "gbk", "x-sjis": "cp932"}
_READ_AS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "tis-620": "cp874",
    "iso8859-11": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-8-sig": "utf-8",
}


def check_library() -> None:
    """See that the library is there that reads HTML, without loading it.

    Raises:
        ToolkitError: it is not.
    """
    if find_spec("html_to_markdown") is None:
        raise ToolkitError("html-to-markdown is missing, which reads HTML; pip install 'gossamer[web]'")


def decode_text(data: bytes, charset: str = "") -> str:
    """Decode a text of the web; bytes that do not fit become U+FFFD.

    The charset is that of a byte order mark, or of the header, or of the document itself; else UTF-8 where the bytes
    are, and Windows-1252 where not.

    Args:
        data: the bytes.
        charset: what the header says, or `""`.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, "replace")
    name = _known(charset)
    if not name:
        said = _META_CHARSET.search(data[:_META_BYTES]) or _XML_ENCODING.search(data[:_META_BYTES])
        name = _known(said.group(1).decode("ascii")) if said else ""
        if name.startswith("utf-16"):
            name = "utf-8"  # or the declaration could not have been read
    if name:
        return data.decode(name, "replace")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        # A page that was cut off may end within a character.
        cut = error.reason == "unexpected end of data" and error.start > len(data) - 4
        return data.decode("utf-8" if cut else "cp1252", "replace")


def read_page(html: str, url: str, max_chars: int, seconds: float) -> tuple[str, str, int]:
    """Read an HTML page; a large one in a process of its own, which costs some 100 ms and can be stopped.

    Args:
        html: the page.
        url: where it was found.
        max_chars: the most characters of the text to give.
        seconds: how long it may take.

    Returns:
        Its title, its text as Markdown, and how many characters that has in all.

    Raises:
        TimeoutError: it took longer.
        ToolkitError: the process broke down.
    """
    if len(html) <= _MAX_THREAD_CHARS or not sys.executable:
        return page_of(html, url, max_chars)
    # Without the folder of the script (-P), whose files could be taken for others, and with what is found here.
    command = [sys.executable, "-P", html_reader.__file__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    question = msgspec.json.encode((html, url, max_chars))
    try:
        ran = subprocess.run(  # noqa: S603 - nothing of the page is in the command
            command, input=question, capture_output=True, timeout=seconds, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    except OSError as error:
        raise ToolkitError(f"no process could be started to read the page: {error}") from error
    if ran.returncode != 0:
        said = " ".join(ran.stderr[-300:].decode("utf-8", "replace").split())
        raise ToolkitError(f"the process that read the page ended with {ran.returncode}: {said or 'no word'}")
    return msgspec.json.decode(ran.stdout, type=tuple[str, str, int])


def text_of_fragment(html: str) -> str:
    """Read a piece of HTML, such as a comment, as Markdown.

    Args:
        html: the piece.
    """
    if "<" not in html and "&" not in html:
        return html.strip()
    from html_to_markdown import ConversionOptions, convert

    return (convert(html, ConversionOptions(extract_metadata=False, skip_images=True)).content or "").strip()


def _known(charset: str) -> str:
    """Give Python's name of a charset, `""` where it is none that pages are written in."""
    charset = charset.strip(" \"'").lower()
    try:
        name = codecs.lookup(_OTHER_NAMES.get(charset, charset)).name
    except (LookupError, ValueError):  # ValueError: a NUL
        return ""
    name = _READ_AS.get(name, name)
    return name if name in _CHARSETS else ""
