"""The providers' prompt caches: which beginning of a prompt was served before."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from llmcost_plugins.testing.records import Clock
from llmcost_plugins.testing.wire import BYTES_PER_TOKEN, Block, Prompt, Usage

MIN_TOKENS = 1024
BLOCK_TOKENS = 128
LOOKBACK_BLOCKS = 20
FIVE_MINUTES = 300.0
ONE_HOUR = 3600.0


@dataclass(slots=True)
class _Entry:
    ttl: float
    expires: float


class _Store:
    """Prefix digests that live for a while after their last use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}

    def hit(self, digest: bytes) -> bool:
        """Tell whether the prefix is there, and keep it for longer if so."""
        entry = self._entries.get(digest)
        now = self._clock()
        if entry is None or entry.expires <= now:
            return False
        entry.expires = now + entry.ttl
        return True

    def put(self, digest: bytes, ttl: float) -> None:
        """Keep a prefix for `ttl` seconds."""
        self._entries[digest] = _Entry(ttl, self._clock() + ttl)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def _prefix_digests(account: str, content: bytes, ends: Sequence[int]) -> list[bytes]:
    """Hash the beginnings of a prompt that end at the token positions `ends` (ascending)."""
    view = memoryview(content)
    running = hashlib.blake2b(account.encode("utf-8", "surrogatepass"), digest_size=16)
    digests = []
    start = 0
    for end in ends:
        running.update(view[start * BYTES_PER_TOKEN : end * BYTES_PER_TOKEN])
        digests.append(running.digest())
        start = end
    return digests


class AutomaticCache:
    """OpenAI's: every beginning of 1,024 tokens and more is cached, in steps of 128."""

    def __init__(self, clock: Clock) -> None:
        self._store = _Store(clock)

    def use(self, account: str, prompt: Prompt) -> Usage:
        """Count the input of a prompt, and cache the prompt."""
        ends = range(MIN_TOKENS, prompt.tokens + 1, BLOCK_TOKENS)
        digests = _prefix_digests(account, prompt.content, ends)
        hits = [end for end, digest in zip(ends, digests, strict=True) if self._store.hit(digest)]
        for digest in digests:
            self._store.put(digest, FIVE_MINUTES)
        return Usage(input=prompt.tokens, cached=max(hits, default=0))

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()


class MarkedCache:
    """Anthropic's: what ends at a block with a cache marker is cached, from 1,024 tokens up."""

    def __init__(self, clock: Clock) -> None:
        self._store = _Store(clock)

    def use(self, account: str, prompt: Prompt) -> Usage:
        """Count the input of a prompt, and cache it up to its markers."""
        digests = _prefix_digests(account, prompt.content, [block.end for block in prompt.blocks])
        read = self._longest_hit(prompt.blocks, digests)
        written_5m = written_1h = 0
        reached = read
        for block, digest in zip(prompt.blocks, digests, strict=True):
            if block.ttl is None or block.end < MIN_TOKENS or block.end <= read:
                continue
            self._store.put(digest, block.ttl)
            if block.ttl == ONE_HOUR:
                written_1h += block.end - reached
            else:
                written_5m += block.end - reached
            reached = block.end
        return Usage(input=prompt.tokens, cached=read, written_5m=written_5m, written_1h=written_1h)

    def _longest_hit(self, blocks: Sequence[Block], digests: Sequence[bytes]) -> int:
        """Look for a cached beginning at each marker and at the blocks shortly before it, the last marker first."""
        for marker in range(len(blocks) - 1, -1, -1):
            if blocks[marker].ttl is None:
                continue
            for index in range(marker, max(-1, marker - LOOKBACK_BLOCKS), -1):
                if self._store.hit(digests[index]):
                    return blocks[index].end
        return 0

    def clear(self) -> None:
        """Forget everything."""
        self._store.clear()
