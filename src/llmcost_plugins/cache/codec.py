"""Answers to bytes and back: our own JSON envelope with version and checksum; nothing in it is ever instantiated."""

import hashlib
import hmac
import json
from typing import Any

from llmcost_plugins.errors import CorruptEntry
from llmcost_plugins.types import Reply, Usage

_VERSION = 1


def encode(reply: Reply, exact: str, secret: bytes | None = None) -> bytes:
    """Return a reply as bytes; `exact` is the fingerprint of the request as it was put.

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
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return f"{_VERSION}:{_checksum(text, secret)}:".encode() + text


def decode(payload: bytes, secret: bytes | None = None) -> tuple[Reply, str]:
    """Return the reply and the exact fingerprint that `encode` was given.

    Raises:
        CorruptEntry: The payload was cut, changed, forged, or written by another version.
    """
    version, _, rest = payload.partition(b":")
    checksum, _, text = rest.partition(b":")
    if version != str(_VERSION).encode():
        raise CorruptEntry(f"entry has version {version[:8]!r}; expected {_VERSION}")
    if not hmac.compare_digest(checksum, _checksum(text, secret).encode()):
        raise CorruptEntry("entry fails its checksum")
    try:
        return _reply(json.loads(text.decode("utf-8", "surrogatepass")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptEntry(f"entry has not the expected form: {error}") from error


def _reply(content: dict[str, Any]) -> tuple[Reply, str]:
    stored = content["usage"]
    usage = None if stored is None else Usage(**{name: stored[name] for name in Usage._fields})
    if usage is not None:
        usage.check()
    names = ("body", "text", "provider", "model", "finish", "calls_tools")
    return Reply(**{name: content[name] for name in names}, usage=usage), content["exact"]


def _checksum(text: bytes, secret: bytes | None) -> str:
    return hmac.new(secret, text, hashlib.sha256).hexdigest() if secret else hashlib.sha256(text).hexdigest()
