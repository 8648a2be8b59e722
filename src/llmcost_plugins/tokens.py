"""Token counts: exact where the model's tokenizer is at hand, a flagged estimate where it is not.

Nothing here touches the network: `tiktoken` downloads an encoding that it lacks, so one is only loaded where its file
already lies on this machine (in tiktoken's own cache, or in the copy that llama-index-core carries).
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llmcost_plugins.types import Message

if TYPE_CHECKING:
    from tiktoken import Encoding

_BLOBS = "https://openaipublic.blob.core.windows.net/encodings"  # tiktoken names its files by a hash of this address
_SHA256 = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
_LIKELY = "o200k_base"
_BYTES_PER_TOKEN = 4  # English text on current vocabularies; the rule of thumb of the providers' documentation
_PER_MESSAGE = 3  # OpenAI's chat format: role and separators of a message ...
_PER_REPLY = 3  # ... and the opening of the reply
_loading = threading.Lock()


class TokenCount(NamedTuple):
    """A number of tokens, and whether the model's own tokenizer counted them."""

    tokens: int
    exact: bool


def count_text(text: str, model: str = "") -> TokenCount:
    """Count the tokens of a text as `model` reads it."""
    name = _encoding_name(model)
    encoding = _encoding(name or _LIKELY)
    if encoding is None:
        return TokenCount(-(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN), False)
    return TokenCount(len(encoding.encode(text, disallowed_special=())), name is not None)


def count_messages(messages: Iterable[Message], model: str = "") -> TokenCount:
    """Count the tokens of a chat prompt, exactly for plain text on OpenAI's models."""
    tokens, exact = _PER_REPLY, True
    for message in messages:
        counted = count_text(message_text(message), model)
        tokens += counted.tokens + _PER_MESSAGE
        exact = exact and counted.exact and "tool_calls" not in message and _is_text(message.get("content"))
    return TokenCount(tokens, exact)


def message_text(message: Message) -> str:
    """Return the text of a message, its text parts joined where the content is a list."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(_part_text(part) for part in content or ())


def _is_text(content: Any) -> bool:
    return isinstance(content, str) or all(
        isinstance(part, dict) and part.get("type") == "text" for part in content or ()
    )


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return str(part.get("text") or "") if isinstance(part, dict) else ""


@cache
def _encoding_name(model: str) -> str | None:
    from tiktoken.model import encoding_name_for_model

    try:
        return encoding_name_for_model(model)
    except KeyError:
        return None


@cache
def _encoding(name: str) -> "Encoding | None":
    folder = next((folder for folder in _folders() if _holds(folder, name)), None)
    if folder is None:
        return None
    import tiktoken

    with _loading, _environment("TIKTOKEN_CACHE_DIR", str(folder)):
        return tiktoken.get_encoding(name)


def _holds(folder: Path, encoding: str) -> bool:
    """Tell whether the folder has the encoding's file, and whole: `tiktoken` fetches a damaged one again."""
    try:
        content = (folder / _file_name(encoding)).read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content).hexdigest() == _SHA256.get(encoding)


def _file_name(encoding: str) -> str:
    return hashlib.sha1(f"{_BLOBS}/{encoding}.tiktoken".encode(), usedforsecurity=False).hexdigest()


def _folders() -> Iterator[Path]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if folder := os.environ.get(variable):
            yield Path(folder)
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    spec = find_spec("llama_index")
    for root in (spec and spec.submodule_search_locations) or ():
        yield Path(root) / "core" / "_static" / "tiktoken_cache"


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
