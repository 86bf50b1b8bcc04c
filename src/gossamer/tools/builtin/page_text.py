"""Text out of bytes of the web: which charset, and HTML as Markdown. Everything here may take long: run it in a thread."""

from __future__ import annotations

import codecs
import re
from importlib.util import find_spec

from gossamer.errors import ToolkitError

__all__ = ["check_library", "decode_text", "page_of", "text_of_fragment"]

# The head of a page, where its title and its charset stand.
_HEAD_CHARS = 64 * 1024
_META_BYTES = 4_096

# Links are made absolute up to this length of the page's own URL: it is repeated for each of them.
_MAX_BASE_CHARS = 256

_META_CHARSET = re.compile(rb"<meta[^>]{1,500}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"<\?xml[^>]{1,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.IGNORECASE)
_BASE = re.compile(r"<base\b", re.IGNORECASE)
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


def page_of(html: str, url: str) -> tuple[str, str]:
    """Read an HTML page: what a reader sees of it, without navigation, forms, images, scripts and hidden text.

    Args:
        html: the page.
        url: where it was found; relative links are completed by it, if it is not longer than 256 characters.

    Returns:
        Its title, and its text as Markdown.
    """
    from html_to_markdown import ConversionOptions, PreprocessingOptions, convert

    head = convert(html[:_HEAD_CHARS], ConversionOptions(output_format="plain"))
    title = head.metadata.document.title or ""
    base = url.partition("#")[0].partition("?")[0]
    options = ConversionOptions(
        base_url=base if len(base) <= _MAX_BASE_CHARS else None,
        extract_metadata=False,
        preprocessing=PreprocessingOptions(preset="standard"),
        skip_images=True,
    )
    # A `<base>` of any length would be repeated for each link, and make gigabytes of a small page.
    text = convert(_BASE.sub("<base-", html), options).content or ""
    return " ".join(title.split()), text.strip()


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
