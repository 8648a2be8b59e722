"""Answers to bytes and back: our own JSON envelope with version and checksum; nothing in it is ever instantiated."""

import hashlib
import hmac
import json
from operator import itemgetter
from typing import Any, NamedTuple

from llmcost_plugins.errors import CorruptEntry
from llmcost_plugins.types import Hit, Reply, Usage

LARGEST = 1_000_000  # bytes of an answer that is kept, or read

_VERSION = 2
_FIELDS = ("body", "text", "usage", "provider", "model", "finish", "calls_tools")
_TEXTS = ("text", "provider", "model", "exact", "question")
_KEYS = frozenset({*_FIELDS, "exact", "question"})
_counts_in = itemgetter(*Usage._fields)


class Stored(NamedTuple):
    """A stored answer: the exact fingerprint and the question of the request that it was given to, and its fields."""

    exact: str
    question: str
    fields: dict[str, Any]

    @property
    def calls_tools(self) -> bool:
        """Whether the answer calls tools."""
        return bool(self.fields["calls_tools"])

    def reply(self, hit: Hit | None = None) -> Reply:
        """Return the answer, as it was found."""
        return Reply(**self.fields, hit=hit)


def encode(reply: Reply, *, key: str, exact: str, question: str, secret: bytes | None = None) -> bytes:
    """Return a reply as bytes that are valid under `key` alone.

    Raises:
        TypeError: The body holds something that is not plain JSON.
    """
    content = {name: getattr(reply, name) for name in _FIELDS} | {"exact": exact, "question": question}
    content["usage"] = None if reply.usage is None else reply.usage._asdict()
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return f"{_VERSION}:{_checksum(key, text, secret)}:".encode() + text


def decode(payload: bytes, *, key: str, secret: bytes | None = None) -> Stored:
    """Return what `encode` was given.

    Raises:
        CorruptEntry: The payload was cut, changed, forged, moved to another key, or written by another version.
    """
    return decode_verified(verified(payload, key=key, secret=secret))


def verified(payload: bytes, *, key: str, secret: bytes | None = None) -> bytes:
    """Return what a payload holds, once its checksum was seen to be right.

    Raises:
        CorruptEntry: It is not.
    """
    version, _, rest = payload.partition(b":")
    checksum, _, text = rest.partition(b":")
    if version != str(_VERSION).encode():
        raise CorruptEntry(f"entry has version {version[:8]!r}; expected {_VERSION}")
    if len(text) > LARGEST:
        raise CorruptEntry(f"entry has {len(text):,} bytes; at most {LARGEST:,} are read")
    if not hmac.compare_digest(checksum, _checksum(key, text, secret).encode()):
        raise CorruptEntry("entry fails its checksum")
    return text


def decode_verified(text: bytes) -> Stored:
    """Do as `decode` with what `verified` returned."""
    try:
        content = json.loads(text.decode("utf-8", "surrogatepass"))
        if content.keys() != _KEYS or any(type(content[name]) is not str for name in _TEXTS):
            raise CorruptEntry("entry has not the expected fields")
        return _stored(content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CorruptEntry(f"entry has not the expected form: {error}") from error


def decode_again(text: bytes) -> Stored:
    """Do as `decode_verified` with what that has read before: the form is known to be right."""
    return _stored(json.loads(text.decode("utf-8", "surrogatepass")))


def _stored(content: dict[str, Any]) -> Stored:
    counts = content["usage"]
    if counts is not None:
        content["usage"] = usage = Usage._make(_counts_in(counts))
        usage.check()
    return Stored(content.pop("exact"), content.pop("question"), content)


def _checksum(key: str, text: bytes, secret: bytes | None) -> str:
    data = key.encode() + b"\0" + text
    return hmac.new(secret, data, hashlib.sha256).hexdigest() if secret else hashlib.sha256(data).hexdigest()
