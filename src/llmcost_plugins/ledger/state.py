"""A ledger's sums and rows in plain JSON, as they travel between processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.ledger.totals import COUNTS, SUMS, Key, Totals, counts, total
from llmcost_plugins.types import Scope

_SCOPE = Scope._fields


@dataclass(frozen=True, slots=True)
class State:
    """What one ledger recorded itself; of two states with one `id`, that with the higher `count` is the newer."""

    id: str
    count: int
    sums: Mapping[Key, Totals]
    records: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the state in plain JSON."""
        rows = [
            {**key._asdict(), **key.scope._asdict(), "scope": None, **asdict(sums)} for key, sums in self.sums.items()
        ]
        return {"id": self.id, "count": self.count, "totals": rows, "records": self.records}


def add(into: dict[Key, Totals], state: State) -> None:
    """Add a state's sums to others."""
    for key, sums in state.sums.items():
        into[key] = total([into[key], sums]) if key in into else sums


def parse(data: Any) -> list[State]:
    """Return the states that `Ledger.to_dict` put together, the ledger's own first.

    Raises:
        ConfigurationError: The data is of another form.
    """
    try:
        return [_state(part) for part in (data, *data["merged"])]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"expected what `Ledger.to_dict()` returned; {error!r}") from error


def _state(data: Mapping[str, Any]) -> State:
    records = [dict(row) for row in data["records"]]
    for row in records:
        float(row["time"])
    return State(str(data["id"]), int(data["count"]), dict(_sums(row) for row in data["totals"]), records)


def _sums(row: Mapping[str, Any]) -> tuple[Key, Totals]:
    key = Key(row["provider"], row["model"], row["tier"], Scope(*(row[name] for name in _SCOPE)))
    sums: dict[str, Any] = {name: int(row.get(name, 0)) for name in SUMS}
    sums |= {name: counts(row.get(name, {})) for name in COUNTS}
    return key, Totals(**sums)
