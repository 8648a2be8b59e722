"""OpenAI's embeddings format."""

import base64
import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.testing.openai_api import invalid, positive_integer
from llmcost_plugins.testing.wire import JsonObject, count_tokens, encode

_LARGE_DIMENSIONS = 3072
_DIMENSIONS = 1536


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """Return a unit vector that depends on the text alone."""
    raw = hashlib.shake_128(encode(text)).digest(4 * dimensions)
    vector = np.frombuffer(raw, dtype="<u4").astype(np.float64) / 2**31 - 1
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def inputs(body: JsonObject) -> list[str | list[int]]:
    """Read the texts, or lists of token ids, to embed."""
    given = body.get("input")
    if isinstance(given, str) or (isinstance(given, list) and given and isinstance(given[0], int)):
        given = [given]
    if not isinstance(given, list) or not given or not all(_is_text_or_ids(item) for item in given):
        raise invalid("Invalid 'input': expected a text, an array of texts or an array of token ids.", "input")
    return given


def _is_text_or_ids(item: Any) -> bool:
    return isinstance(item, str) or (isinstance(item, list) and all(isinstance(token, int) for token in item))


def input_tokens(texts: list[str | list[int]]) -> int:
    """Count what is to be embedded."""
    return sum(max(1, count_tokens(text) if isinstance(text, str) else len(text)) for text in texts)


def embeddings_body(body: JsonObject, texts: list[str | list[int]], tokens: int, model: str) -> JsonObject:
    """Write the reply with one vector per input."""
    default = _LARGE_DIMENSIONS if "large" in model else _DIMENSIONS
    dimensions = positive_integer(body, "dimensions") or default
    write = _base64 if body.get("encoding_format") == "base64" else _floats
    data = [
        {"object": "embedding", "index": index, "embedding": write(embed(_as_text(text), dimensions))}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _as_text(given: str | list[int]) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _floats(vector: NDArray[np.float32]) -> Any:
    return vector.tolist()
