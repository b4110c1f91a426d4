"""Streaming reader of a large JSON object, in bounded memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.data.filesystems import Transient
from pipeline.data.storage import Storage
from pipeline.errors import ConfigError

__all__ = ["json_elements", "read_json_elements"]

# Bytes per request.
_CHUNK = 8 * 2**20
# Characters of the longest accepted element. One element of COCO's arrays has a few thousand.
_LONGEST = 64 * 2**20
_BLANKS = re.compile(r"[ \t\r\n]*")
# Characters that may continue a number.
_OF_NUMBERS = frozenset("0123456789+-.eE")
_DECODER = json.JSONDecoder()


def read_json_elements(storage: Storage, uri: str, chunk: int = _CHUNK) -> Iterator[tuple[str, Any]]:
    """Yield the elements of a stored JSON object, as `json_elements` does.

    Args:
        storage: Storage that holds the file.
        uri: URI of the file.
        chunk: Bytes per request.

    Yields:
        (key, element) for each element of a value that is an array, otherwise (key, value).

    Raises:
        ConfigError: If the file is not such an object.
    """
    try:
        yield from json_elements(_text(storage, uri, chunk))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{uri} is no JSON object: {error}; fetch the file again") from error


def json_elements(chunks: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Split a JSON object, given as pieces of its text, into its elements.

    Yields:
        (key, element) for each element of a value that is an array, otherwise (key, value).

    Raises:
        ValueError: If the text is not a JSON object, ends early, or has an element of more than 64 Mi characters.
    """
    text = _Text(chunks)
    for _ in text.members("{", "}"):
        key = text.value()
        text.take(":")
        if text.peek() == "[":
            for _ in text.members("[", "]"):
                yield key, text.value()
        else:
            yield key, text.value()


class _Text:
    """Window that moves over the text."""

    def __init__(self, chunks: Iterable[str]) -> None:
        self._chunks = iter(chunks)
        self._window = ""
        self._place = 0

    def peek(self) -> str:
        """Return the next character that is not blank, or an empty string at the end."""
        while True:
            blanks = _BLANKS.match(self._window, self._place)
            self._place = blanks.end() if blanks else self._place
            if self._place < len(self._window):
                return self._window[self._place]
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Step over one character.

        Raises:
            ValueError: If the next character is not the expected one.
        """
        found = self.peek()
        if found != expected:
            raise ValueError(f"{found or 'the end'!r} where {expected!r} should be")
        self._place += 1

    def members(self, opening: str, closing: str) -> Iterator[None]:
        """Stop at each member of an array or object, so that the caller can read it."""
        self.take(opening)
        if self.peek() == closing:
            return self.take(closing)
        while True:
            yield
            if self.peek() == closing:
                return self.take(closing)
            self.take(",")

    def value(self) -> Any:
        """Read one whole value.

        Raises:
            ValueError: If the text is not JSON, ends within the value, or the value is too long.
        """
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._place)
            except json.JSONDecodeError as error:
                problem = str(error)
            else:
                # A number that the window's edge cuts is still a valid number, and so is the part before its decimal
                # point.
                if end < len(self._window) and self._window[end] not in _OF_NUMBERS:
                    self._place = end
                    return value
                problem = "the text ends within a value"
            if len(self._window) - self._place > _LONGEST or not self._more():
                raise ValueError(problem)

    def _more(self) -> bool:
        """Replace the text that has been read with the next chunk; return whether there was one."""
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._window = self._window[self._place :] + chunk
            self._place = 0
        return chunk is not None


def _text(storage: Storage, uri: str, chunk: int) -> Iterator[str]:
    """Yield the text of a file, one request at a time."""
    # Incremental, because a request may end within a character.
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = storage.info(uri).size
    for start in range(0, size, chunk):
        data = _range(storage, uri, start, min(start + chunk, size))
        yield decoder.decode(data, final=start + chunk >= size)


def _range(storage: Storage, uri: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`."""

    def attempt(filesystem: Any, path: str) -> bytes:
        data: bytes = filesystem.cat_file(path, start=start, end=end)
        if len(data) != end - start:
            raise Transient(f"{end - start} bytes of {uri} were asked for, {len(data)} arrived")
        return data

    return storage.call("read", uri, attempt)
