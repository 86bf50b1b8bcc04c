"""HTML as Markdown, here or in a process of its own.

A page can be made so that reading it takes minutes, and nothing stops a thread. So large pages are read in a process,
which is started with this file and killed when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys

__all__ = ["main", "page_of"]

_HEAD_CHARS = 64 * 1024  # where the title stands
_MAX_BASE_CHARS = (
    256  # links are completed up to this length of the page's URL, which is repeated for each of them
)
_BASE = re.compile(r"<base\b", re.IGNORECASE)
_MAX_SECONDS = 120  # of processor time, in case whoever started the process is gone
_MAX_MEMORY = 2 << 30


def page_of(html: str, url: str, max_chars: int) -> tuple[str, str, int]:
    """Read an HTML page: what a reader sees of it, without navigation, forms, images, scripts and hidden text.

    Args:
        html: the page.
        url: where it was found; relative links are completed by it, if it is not longer than 256 characters.
        max_chars: the most characters of the text to give.

    Returns:
        Its title, its text as Markdown, and how many characters that has in all.
    """
    from html_to_markdown import ConversionOptions, PreprocessingOptions, convert

    title = (
        convert(html[:_HEAD_CHARS], ConversionOptions(output_format="plain")).metadata.document.title or ""
    )
    base = url.partition("#")[0].partition("?")[0]
    options = ConversionOptions(
        base_url=base if len(base) <= _MAX_BASE_CHARS else None,
        extract_metadata=False,
        preprocessing=PreprocessingOptions(preset="standard"),
        skip_images=True,
    )
    # A `<base>` of any length would be repeated for each link, and make gigabytes of a small page.
    text = (convert(_BASE.sub("<base-", html), options).content or "").strip()
    return " ".join(title.split())[:1_000], text[:max_chars], len(text)


def main() -> None:
    """Read a page from standard input and write it to standard output, both as JSON."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_MAX_SECONDS, _MAX_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    html, url, max_chars = json.load(sys.stdin.buffer)
    sys.stdout.write(json.dumps(page_of(html, url, max_chars)))


if __name__ == "__main__":
    main()
