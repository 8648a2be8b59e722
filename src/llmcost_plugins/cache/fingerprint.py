"""What makes two requests the same.

A key has two parts. The *partition* holds all that must never be shared: tenant, namespace, version, dialect, model and
parameters, tools and schema, system prompt, earlier turns. The *question* is the user's last turn. Only the question is
ever compared loosely.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

from llmcost_plugins.cache.question import Asked, asked_in
from llmcost_plugins.types import Message, Request

Share: TypeAlias = Literal["tenant", "user", "global"]

_CODE = re.compile(
    r"[`{}<>=\\|$#@^~_\[\]\"\u201c\u201d\u201e\u00ab\u00bb]|\w\(|://|(?:^|\s)--?\w|^(?: {4}|\t)"
    r"|(?<!\w)['\u2018\u2019]|['\u2018\u2019](?!\w)",
    re.MULTILINE,
)
LONGEST = 20_000  # characters of a question that is compared other than to the letter
_BLOCK_IDS = ("id", "call_id", "tool_use_id")
_DRAWN_BLOCKS = frozenset({"text", "output_text", "reasoning", "thinking", "function_call", "tool_call", "tool_use"})
_DIGIT = re.compile(r"\d")
_END_MARKS = frozenset(" .?!…")


@dataclass(frozen=True)
class Fingerprint:
    """A request's identity.

    `exact` tells a repeat to the letter from one that differs in form; `key`, by which answers are kept, does not.
    `question` is what may be compared loosely, empty where nothing may.
    """

    exact: str
    partition: str
    question: str
    secret: bytes | None = field(default=None, repr=False)

    @cached_property
    def form(self) -> str | None:
        """The question without the differences that never matter, None where form may matter."""
        return normalised(self.question)

    @cached_property
    def key(self) -> str:
        """The name of the answer: the same for questions that differ in nothing but form."""
        return self.exact if self.form is None else _digest(f"{self.partition}\0form\0{self.form}", self.secret)

    def versioned(self, version: str) -> "Fingerprint":
        """Return the identity under a category's version; the version "" changes nothing."""
        if not version:
            return self
        partition = _digest(f"{self.partition}\0version\0{version}", self.secret)
        return within(partition, None if self.exact == self.partition else self.question, self.secret)

    def space(self, embedder: str, dimension: int) -> str:
        """Name the vectors that may be compared with that of the question."""
        return _digest(f"{self.partition}\0vectors\0{embedder}\0{dimension}", self.secret)


def fingerprint(
    request: Request,
    *,
    namespace: str,
    version: str,
    secret: bytes | None = None,
    asked: Asked | None = None,
    share: Share = "tenant",
) -> Fingerprint:
    """Return the identity of a request; with a `secret` an HMAC, so that keys tell nothing and cannot be forged."""
    asked = asked_in(request) if asked is None else asked
    partition = _digest(_plain(_partition(request, namespace, version, asked.frame, share)), secret)
    return within(partition, asked.question, secret)


def within(partition: str, question: str | None, secret: bytes | None = None) -> Fingerprint:
    """Return the identity of a question in a partition; without a question the partition itself is one request."""
    if question is None:
        return Fingerprint(partition, partition, "", secret)
    return Fingerprint(_digest(f"{partition}\0exact\0{question}", secret), partition, question, secret)


def normalised(question: str) -> str | None:
    """Return the question without the differences that never matter: spacing, end marks, and the case of plain words.

    None where form may matter: text that holds code, markup, quotes or addresses, or is very long. A word is plain if
    it is written small or with one capital in front; others (IT, iPhone, A1b2, size M) keep their form, unless all is
    shouted.
    """
    if len(question) > LONGEST or _CODE.search(question):
        return None
    text = _without_end_marks(" ".join(question.split()))
    shouted = text.isupper()
    words = text.split()
    before = ["", *words]
    return " ".join(map(partial(_folded, shouted=shouted), words, before)) or None


def cacheable_identity(identity: str) -> bool:
    """Tell whether a model's description names it for good: no object addresses, no classes known by name only."""
    return " at 0x" not in identity and "<class '" not in identity


def _without_end_marks(text: str) -> str:
    """Cut dots, question and exclamation marks off the end; the mark of a factorial (3!) stays."""
    end = len(text)
    while end and text[end - 1] in _END_MARKS and not (text[end - 1] == "!" and text[end - 2 : end - 1].isdigit()):
        end -= 1
    return text[:end]


def _folded(word: str, before: str, *, shouted: bool) -> str:
    """Return a plain word in small letters; one with a digit, or after one (a unit: 5 Mg, 5 mg), as it is."""
    bare = word.strip(".,;:!?()'-/…")
    small = bare[1:] == bare[1:].lower() and (len(bare) > 1 or bare in "IAiaoO")
    if not (shouted or small) or _DIGIT.search(bare) or _DIGIT.search(before):
        return word
    return word.casefold()


def _partition(request: Request, namespace: str, version: str, frame: Sequence[Message], share: Share) -> list[Any]:
    scope = request.scope
    whose = {"global": [], "tenant": [scope.tenant], "user": [scope.tenant, scope.user]}[share]
    return [*whose, namespace, version, request.dialect, request.model, request.params, _canonical(frame)]


def _canonical(messages: Sequence[Message]) -> list[Any]:
    """Return messages with their tool-call ids renamed by order of appearance: providers draw them anew each time."""
    seen: dict[str, str] = {}

    def rename(call_id: Any) -> str:
        return seen.setdefault(str(call_id), f"call-{len(seen)}")

    plain: list[Any] = []
    for message in messages:
        body = dict(message)
        if calls := body.get("tool_calls"):
            body["tool_calls"] = [{**call, "id": rename(call.get("id"))} for call in calls]
        if "tool_call_id" in body:
            body["tool_call_id"] = rename(body["tool_call_id"])
        if isinstance(body.get("content"), list):
            body["content"] = [_block(block, seen) if isinstance(block, dict) else block for block in body["content"]]
        plain.append(body)
    return plain


def _block(block: Mapping[str, Any], seen: Mapping[str, str]) -> dict[str, Any]:
    """Return a content block with the ids of tool calls renamed, and those left out that providers draw anew."""
    drawn = block.get("type") in _DRAWN_BLOCKS
    plain = {name: value for name, value in block.items() if not (drawn and name in _BLOCK_IDS)}
    return plain | {name: seen[block[name]] for name in _BLOCK_IDS if block.get(name) in seen}


def _refuse(value: Any) -> Any:
    raise TypeError(f"`{type(value).__name__}` has no lasting form")


_plain = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_refuse).encode


def _digest(text: str, secret: bytes | None) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(secret, data, hashlib.sha256).hexdigest() if secret else hashlib.sha256(data).hexdigest()
