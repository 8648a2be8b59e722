"""Answers to bytes and back: our own JSON envelope with version and checksum; nothing in it is ever instantiated."""

import hashlib
import hmac
import json
from typing import Any, NamedTuple

from llmcost_plugins.errors import CorruptEntry
from llmcost_plugins.types import Hit, Reply, Usage

_VERSION = 2
_FIELDS = ("body", "text", "provider", "model", "finish", "calls_tools")


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
    content = {
        "body": reply.body,
        "text": reply.text,
        "usage": None if reply.usage is None else reply.usage._asdict(),
        "provider": reply.provider,
        "model": reply.model,
        "finish": reply.finish,
        "calls_tools": reply.calls_tools,
        "exact": exact,
        "question": question,
    }
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
    if not hmac.compare_digest(checksum, _checksum(key, text, secret).encode()):
        raise CorruptEntry("entry fails its checksum")
    return text


def decode_verified(text: bytes) -> Stored:
    """Do as `decode` with what `verified` returned."""
    try:
        return _stored(json.loads(text.decode("utf-8", "surrogatepass")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptEntry(f"entry has not the expected form: {error}") from error


def _stored(content: dict[str, Any]) -> Stored:
    stored = content["usage"]
    usage = None if stored is None else Usage(**{name: stored[name] for name in Usage._fields})
    if usage is not None:
        usage.check()
    return Stored(content["exact"], content["question"], {**{name: content[name] for name in _FIELDS}, "usage": usage})


def _checksum(key: str, text: bytes, secret: bytes | None) -> str:
    data = key.encode() + b"\0" + text
    return hmac.new(secret, data, hashlib.sha256).hexdigest() if secret else hashlib.sha256(data).hexdigest()
