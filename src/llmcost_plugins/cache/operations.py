"""What the keeper of a cache does with it. Unlike the verbs of a request, these are plain calls that wait."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmcost_plugins.cache.codec import Stored, decode, encode
from llmcost_plugins.cache.fingerprint import within
from llmcost_plugins.cache.policy import Policy
from llmcost_plugins.cache.semantic import Match
from llmcost_plugins.cache.statistics import CategoryStatistics, json_line
from llmcost_plugins.errors import ConfigurationError, CorruptEntry, TrafficError
from llmcost_plugins.events import CacheMissed
from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.pricing import usd
from llmcost_plugins.scope import current_scope
from llmcost_plugins.types import Entries, Entry, Message, Reply, Request, Usage

if TYPE_CHECKING:
    from llmcost_plugins.cache.cache import Found

T = TypeVar("T")

_PAGE = 500
_ENTRY_ID = 16  # characters
_FORMAT = 1
_ENTRY_FIELDS = ("key", "created", "expires", "partition", "question", "space", "value")
_REPLY_FIELDS = ("body", "text", "provider", "model", "finish", "calls_tools")
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("key", "exact", "partition", "question", "space"), str),
    "created": int | float,
    "expires": int | float | None,
    "value": int,
    "tags": list,
    "vector": str | None,
    "reply": dict,
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a request is answered as it is: `tier` is how, or None, and `reason` says why not.

    `matches` are the stored questions that came near, each with its likeness and what became of it.
    """

    question: str
    category: str
    policy: Policy | None
    tier: str | None
    entry_id: str
    reason: str
    threshold: float | None
    matches: tuple[Match, ...]

    def __str__(self) -> str:
        head = f"{self.question!r}: category {self.category or '-'}, "
        answer = f"answered ({self.tier}, entry {self.entry_id})" if self.tier else f"not answered: {self.reason}"
        return "\n".join([head + answer, *(f"  {_described(match, self.threshold)}" for match in self.matches)])


class Operations:
    """The part of `Cache` that looks after what is kept."""

    if TYPE_CHECKING:
        _entries: Entries
        _recent: Any
        _statistics: Any
        _secret: bytes | None
        _version: str
        _kept: int
        _clock: Callable[[], float]
        _policies: Mapping[str, Policy]

        def _identify(self, request: Request, sink: Any) -> "Found": ...
        def _classified(self, found: "Found") -> "Found": ...
        def _look_up(self, found: "Found", print_: Any, read: Any) -> Plan["Found"]: ...
        def _threshold(self, category: str) -> float: ...
        def store(self, request: Request, reply: Reply, sink: Any = None) -> Plan[None]: ...  # noqa: D102

    def explain(self, request: Request | str, *, partition: str | None = None) -> Explanation:
        """Return how a request would be answered now and why.

        A text stands for a request of that question alone, or for one in a `partition` of the store, which `contents`
        lists: the answers of one tenant, model, system prompt and so on. Explaining changes and counts nothing, and
        asks no judge.
        """
        request = _request(request)
        found = self._classified(self._identify(request, _silent)._replace(dry=True))
        if partition is not None and found.fingerprint is not None:
            found = found._replace(fingerprint=within(partition, found.fingerprint.question, self._secret))
        print_ = found.fingerprint
        if print_ is not None:
            found = drive(self._look_up(found, print_, None))
        hit = found.reply.hit if found.reply is not None else None
        question = print_.question if print_ is not None else ""
        policy = self._policies.get(found.category)
        return Explanation(
            question or str(request.messages[-1].get("content", "") if request.messages else ""),
            found.category,
            policy,
            hit.tier if hit is not None else None,
            hit.entry_id if hit is not None else "",
            "" if hit is not None else found.reason,
            self._threshold(found.category) if found.vector is not None else None,
            found.matches,
        )

    def delete(self, request: Request | str) -> bool:
        """Forget the answer to a request; tell whether there was one."""
        found = self._identify(_request(request), None)
        print_ = found.fingerprint
        if print_ is None:
            return False
        classified = self._classified(found).fingerprint
        return self._forgetting(self._entries.delete((classified or print_).key))

    def report_bad(self, entry_id: str) -> bool:
        """Take an answer out of use that was wrong, by the entry id of its hit; tell whether it was still there."""
        if len(entry_id) < _ENTRY_ID:
            raise ConfigurationError(
                f"`entry_id` is {entry_id!r}; a hit's is in response_metadata['llmcost']['entry_id']"
            )
        page = drive(self._entries.page(entry_id[: _ENTRY_ID - 1], _PAGE))  # the keys that follow in their order
        keys = [entry.key for entry in page if entry.key.startswith(entry_id)]
        return sum(self._forgetting(self._entries.delete(key)) for key in keys) > 0

    def invalidate(self, tag: str) -> int:
        """Forget every answer that has a tag, as when the data behind it has changed; tell how many there were."""
        return self._forgetting(self._entries.invalidate(tag))

    def bump_version(self, version: str) -> None:
        """Forget all at once in this process, by giving all later requests another version.

        Other processes go on with theirs: set `version` in what starts them.
        """
        self._version = version
        self._recent.clear()

    def clear(self) -> None:
        """Forget every answer of the cache's namespace."""
        self._forgetting(self._entries.clear())

    def _forgetting(self, plan: Plan[T]) -> T:
        """Run a plan that removes answers from the store, and then forget those at hand."""
        try:
            return drive(plan)
        finally:
            self._recent.clear()

    def purge(self) -> int:
        """Remove what has expired; tell how many answers that were."""
        now = self._clock()
        gone = [entry.key for entry in self._all() if entry.expires is not None and entry.expires <= now]
        return sum(drive(self._entries.delete(key)) for key in gone)

    def count(self) -> int:
        """Tell how many answers are kept, expired ones included."""
        return drive(self._entries.count())

    def contents(self) -> dict[str, Any]:
        """Return what the store holds: how many answers, expired ones among them, their worth and their age."""
        entries, now = list(self._all()), self._clock()
        return {
            "answers": len(entries),
            "expired": sum(entry.expires is not None and entry.expires <= now for entry in entries),
            "found by meaning": sum(entry.vector is not None for entry in entries),
            "partitions": dict(Counter(entry.partition for entry in entries).most_common()),
            "dollars a hit": float(usd(sum(entry.value for entry in entries))) / max(1, len(entries)),
            "oldest in seconds": max((now - entry.created for entry in entries), default=0.0),
        }

    def stats(self) -> Mapping[str, CategoryStatistics]:
        """Return the counts of this process by category."""
        return dict(self._statistics.by_category)

    def misses(self) -> tuple[CacheMissed, ...]:
        """Return the newest misses of this process, each with what came nearest and what refused it."""
        return tuple(self._statistics.misses)

    def warm(self, answers: Iterable[tuple[Request | str, Reply | str]]) -> int:
        """Keep answers that are known beforehand, as of an FAQ; tell how many are kept.

        Texts stand for a question and its answer. A door's own requests carry its model and system prompt: warm those
        through the door.
        """
        before = self._kept
        for request, reply in answers:
            known = Reply({"text": reply}, text=reply) if isinstance(reply, str) else reply
            self._forgetting(self.store(_request(request), known))
        return self._kept - before

    def export(self, path: str | Path) -> int:
        """Write every readable answer as a line of JSON; tell how many.

        The file holds questions and answers in clear text, and no checksum: keep it as safe as the store.
        """
        written = 0
        try:
            with Path(path).open("w", encoding="utf-8") as file:
                for line in self._exported():
                    file.write(line)
                    written += 1
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error}") from error
        return written

    def _exported(self) -> Iterator[str]:
        for entry in self._all():
            try:
                stored = decode(entry.payload, key=entry.key, secret=self._secret)
            except CorruptEntry:
                continue
            yield json_line(_row(entry, stored, _keyed_by(self._secret)))

    def load(self, path: str | Path) -> int:
        """Keep the answers of a file that `export` wrote; tell how many. What has expired since is left out.

        Raises:
            TrafficError: A line is no exported answer; those before it are kept.
            ConfigurationError: There is no such file.
        """
        loaded, now = 0, self._clock()
        for number, line in _lines(path):
            try:
                entry = self._entry(json.loads(line))
                if entry.expires is None or entry.expires > now:
                    self._forgetting(self._entries.put(entry))
                    loaded += 1
            except (KeyError, TypeError, ValueError, AttributeError, RecursionError, ConfigurationError) as error:
                text = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
                raise TrafficError(str(path), number, f"expected an exported answer: {text}") from error
        return loaded

    def _entry(self, row: Mapping[str, Any]) -> Entry:
        if row["format"] != _FORMAT:
            raise ValueError(f"format {row['format']!r}, expected {_FORMAT}")
        if row["keyed_by"] != _keyed_by(self._secret):
            raise ValueError("it was written by a cache with another `secret`, and could never be found")
        for name, kind in _KINDS.items():
            if not isinstance(row[name], kind):
                raise TypeError(f"`{name}` is {row[name]!r}")
        names = {"key": row["key"], "exact": row["exact"], "question": row["question"]}
        payload = encode(_reply(row["reply"]), **names, secret=self._secret)
        decode(payload, key=row["key"], secret=self._secret)  # what cannot be read again is refused here
        vector = bytes.fromhex(row["vector"]) if row["vector"] is not None else None
        fields = {name: row[name] for name in _ENTRY_FIELDS}
        return Entry(payload=payload, vector=vector, tags=tuple(map(str, row["tags"])), **fields)

    def _all(self) -> Iterator[Entry]:
        after: str | None = None
        while page := drive(self._entries.page(after, _PAGE)):
            yield from page
            after = page[-1].key


def _request(given: Request | str) -> Request:
    if isinstance(given, Request):
        return given
    message: Message = {"role": "user", "content": given}
    return Request((message,), scope=current_scope())


def _silent(event: Any) -> None:
    """Take an event that nobody is to hear of."""


def _described(match: Match, threshold: float | None) -> str:
    needed = f" (from {threshold:.2f})" if threshold is not None else ""
    why = f"vetoed: {match.veto}" if match.veto else match.verdict
    near = f"cosine {match.neighbour.similarity:.3f}, likeness {match.likeness:.3f}{needed}"
    return f"{near}: {match.neighbour.question!r}, {why}"


def _row(entry: Entry, stored: Stored, keyed_by: str) -> dict[str, Any]:
    fields = {name: getattr(entry, name) for name in _ENTRY_FIELDS}
    vector = None if entry.vector is None else entry.vector.hex()
    usage = stored.fields["usage"]
    reply = {**stored.fields, "usage": None if usage is None else usage._asdict()}
    own = {"format": _FORMAT, "keyed_by": keyed_by, "exact": stored.exact}
    return {**own, **fields, "tags": entry.tags, "vector": vector, "reply": reply}


def _reply(row: Mapping[str, Any]) -> Reply:
    usage = None if row["usage"] is None else Usage(**row["usage"])
    return Reply(**{name: row[name] for name in _REPLY_FIELDS}, usage=usage)


def _keyed_by(secret: bytes | None) -> str:
    """Name a secret without telling it."""
    return "" if secret is None else hmac.new(secret, b"llmcost export", hashlib.sha256).hexdigest()[:16]


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, each with its number."""
    number = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise TrafficError(str(path), number + 1, "expected UTF-8 text") from error
