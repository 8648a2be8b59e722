"""What a demo showed: a table for the terminal and one HTML page without any outside part."""

import html
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

from llmcost_plugins import __version__
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.ledger.summary import by_name, dollars, money, percent
from llmcost_plugins.pricing import usd
from llmcost_plugins.replay.context import Compression
from llmcost_plugins.replay.demo import Demo, Outcome, Run
from llmcost_plugins.replay.traffic import Row

_WIDTH, _HEIGHT, _PAD = 720, 260, 46
_BAR, _LABEL, _LONGEST = 30, 300, 40
_HIT_TIERS = ("exact", "normalised", "semantic")
_SHOWN_WRONG = 500
_COLOURS = ("#8a94a6", "#0b7a75", "#d9822b", "#5b5bd6", "#c23b5a")


class Bar(NamedTuple):
    """One bar of a plot; `shown` is its value as people read it."""

    name: str
    value: float
    shown: str
    colour: str


Figure: TypeAlias = tuple[str, Callable[[Run], str]]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430}
table{border-collapse:collapse;margin:1rem 0;width:100%}
td,th{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #e3e7ee}
td:first-child,th:first-child{text-align:left;white-space:pre-wrap}
.text{font-size:.9rem}.text td,.text th{text-align:left;vertical-align:top;min-width:6.5rem;overflow-wrap:anywhere}
caption{text-align:left;font-weight:600;padding:.3rem 0}
figure{margin:1.5rem 0}figcaption{color:#566}svg{max-width:100%;height:auto}
.big{font-size:2.2rem;font-weight:700;color:#0b7a75}
@media (prefers-color-scheme:dark){body{background:#14181f;color:#dde3ec}td,th{border-color:#2c3442}
figcaption{color:#9ab}}
"""


def table_rows(demo: Demo) -> list[tuple[str, str, str]]:
    """Return the demo's table: a figure's name, and its value without and with the layers."""
    plain, layered = demo.plain, demo.layered
    rows = [(name, of(plain), of(layered)) for name, of in (*_FIGURES, *_hit_figures(layered), *_OUTCOMES)]
    tiers = [
        (f"answered by {tier}", percent(_share(plain, tier)), percent(_share(layered, tier)))
        for tier in _tiers(layered)
    ]
    read = [(name, "", of(layered.compression)) for name, of in _READING if layered.compression is not None]
    routed = [
        (f"{tier}: answered, escalated, saved", _routed(plain, tier), _routed(layered, tier))
        for tier in layered.summary.by_tier
        if tier not in ("", "cache")
    ]
    return [*rows, *read, *tiers, *routed]


def _routed(run: Run, tier: str) -> str:
    """Say what a tier did, beside asking the strongest for everything; nothing of a run without tiers."""
    sums = run.summary.by_tier.get(tier)
    if sums is None:
        return ""
    drafts = sums.calls - sums.answered - sums.failed - sums.cut - sums.abandoned
    return f"{sums.answered:,}, {drafts:,}, {money(sums.routing_saved - sums.escalated_cost)}"


def headline(demo: Demo) -> str:
    """Return the result in one sentence."""
    before, after = demo.plain.summary.totals, demo.layered.summary.totals
    requests = len(demo.traffic.rows)
    text = f"{money(before.cost)} became {money(after.cost)}: {_saved(demo)} on {requests:,} requests"
    wrong = len(demo.layered.wrong_hits)
    quality = demo.layered.quality
    text += f", {wrong:,} wrong hit{'' if wrong == 1 else 's'}" if demo.traffic.labelled else ""
    return text + (f", {percent(quality)} answered right" if quality is not None else "") + "."


def wrong_hit_lines(demo: Demo, most: int = 10) -> list[str]:
    """Return each wrong hit with its two questions, those beyond `most` as their number."""
    wrong = demo.layered.wrong_hits
    lines = [
        f"wrong hit ({_how(hit)}): {_asked(hit.row)} was given the answer to {_asked(hit.bought_for)}"
        for hit in wrong[:most]
    ]
    return lines + ([f"... and {len(wrong) - most:,} more wrong hits, in the report"] if len(wrong) > most else [])


def _how(outcome: Outcome) -> str:
    return f"semantic, cosine {outcome.similarity:.2f}" if outcome.hit == "semantic" else str(outcome.hit)


def _asked(row: Row | None) -> str:
    return "another question" if row is None else f"{row.question[:200]!r} [{row.answer_id}]"


def _saved(demo: Demo) -> str:
    if demo.saved is not None:
        return f"{percent(demo.saved)} saved"
    return f"saving not known ({demo.unpriced:,} calls without a known price)"


def write_report(demo: Demo, path: Path) -> None:
    """Write the HTML page at once or not at all."""
    page = html_report(demo)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".html", delete=False) as part:
        written = Path(part.name)
        try:
            part.write(page)
        except BaseException:
            written.unlink(missing_ok=True)
            raise
    written.chmod(0o644)
    written.replace(path)


def check_writable(path: Path) -> None:
    """Raise before the work where the report could not be written after it."""
    folder = path.parent
    if not folder.is_dir():
        raise ConfigurationError(
            f"the report's folder {folder} does not exist; create it or choose another with --report"
        )
    if path.is_dir() or not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ConfigurationError(f"the report cannot be written to {path}; choose another place with --report")


def html_report(demo: Demo) -> str:
    """Return the page: headline, table, plots, and each wrong hit."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>"
        for name, a, b in table_rows(demo)
    )
    source = "a real endpoint" if demo.endpoint.real else "a simulated provider on this machine"
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>llmcost demo</title>
<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>
<h1>What the same traffic costs</h1><p class="big">{_saved(demo)}</p><p>{html.escape(headline(demo))}</p>
<p>Traffic: {html.escape(demo.traffic.name)}, sent twice over HTTP by <code>ChatOpenAI</code> to {source}.
Strong model {html.escape(demo.endpoint.strong)}, weak model {html.escape(demo.endpoint.weak)}; prices of the day.</p>
<table><tr><th></th><th>plain</th><th>with layers</th></tr>{rows}</table>
{_figure("Money spent as the requests came in, in US dollars", _cost_plot(demo))}
{_figure("What each layer saved, in US dollars, counted on the tokens that were served", _savings_plot(demo))}
{_figure("How long requests took, in milliseconds (share of requests at most that long)", _latency_plot(demo))}
{_figure("How many requests the cache answered by each tier, and why others went to a model", _answers_plot(demo))}
{_vetoes(demo.layered)}
{_wrong_hits(demo)}
<p>Made by llmcost_plugins {__version__}: <code>llmcost demo</code>.</p></body></html>
"""


def _cost(run: Run) -> str:
    unpriced = run.summary.totals.unpriced
    return money(run.summary.totals.cost) + (f" and {unpriced:,} calls without a known price" if unpriced else "")


def _calls(run: Run) -> str:
    return f"{run.summary.totals.paid:,}"


def _tokens(run: Run) -> str:
    sums = run.summary.totals
    return f"{sums.input_tokens:,} in ({sums.cached_tokens:,} cached), {sums.output_tokens:,} out"


def _wrong(run: Run) -> str:
    known = [outcome for outcome in run.outcomes if outcome.wrong_hit is not None]
    unlabelled = run.summary.totals.hits and not known
    return "not labelled" if unlabelled else f"{len(run.wrong_hits):,} of {run.summary.totals.hits:,}"


def _quality(run: Run) -> str:
    return "not labelled" if run.quality is None else percent(run.quality)


def _billed(run: Run) -> str:
    return {None: "not known", True: "yes", False: "NO"}[run.billed_is_served]


def _hit_figures(layered: Run) -> list[Figure]:
    """Return the figures of the cache: hits by tier, and what vetoes refused."""
    others = sorted(layered.summary.totals.hits_by_tier.keys() - set(_HIT_TIERS))
    tiers: list[Figure] = [(f"  {tier}", partial(_hits_of, tier)) for tier in (*_HIT_TIERS, *others)]
    hits: Figure = ("hits", lambda run: f"{run.summary.totals.hits:,} ({percent(run.summary.hit_rate)})")
    return [hits, *tiers, ("near, but vetoed", lambda run: by_name(run.summary.totals.vetoes) or "0")]


def _hits_of(tier: str, run: Run) -> str:
    return f"{run.summary.totals.hits_by_tier.get(tier, 0):,}"


_FIGURES: tuple[Figure, ...] = (
    ("requests", lambda run: f"{len(run.outcomes):,}"),
    ("provider calls", _calls),
    ("tokens", _tokens),
    ("cost", _cost),
    ("saved by cache", lambda run: money(run.summary.totals.cache_saved)),
    ("saved by routing", lambda run: money(run.summary.totals.routing_saved)),
    ("spent on drafts given up", lambda run: money(run.summary.totals.escalated_cost)),
    ("provider prompt cache", lambda run: money(run.summary.totals.provider_cache_saved)),
)
_READING: tuple[tuple[str, Callable[[Compression], str]], ...] = (
    ("retrieved passages, tokens", lambda done: f"{done.tokens_before:,} -> {done.tokens_after:,}"),
    ("numbers of the answers in them", lambda done: f"{done.numbers:,} -> {done.numbers_kept:,}"),
)
_OUTCOMES: tuple[Figure, ...] = (
    ("wrong hits", _wrong),
    ("right answers", _quality),
    ("escalated", lambda run: f"{run.summary.totals.escalations:,}"),
    ("latency p50 / p99", lambda run: f"{run.latency(0.5) * 1e3:,.0f} / {run.latency(0.99) * 1e3:,.0f} ms"),
    ("billed = served", _billed),
)


def _tiers(run: Run) -> list[str]:
    return sorted({outcome.tier for outcome in run.outcomes})


def _share(run: Run, tier: str) -> float:
    return sum(outcome.tier == tier for outcome in run.outcomes) / len(run.outcomes)


def _figure(caption: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _wrong_hits(demo: Demo) -> str:
    wrong = demo.layered.wrong_hits
    rows = [(_asked(hit.row), _asked(hit.bought_for), _how(hit)) for hit in wrong[:_SHOWN_WRONG]]
    caption = f"Wrong hits: {len(wrong):,}, with the label of each question"
    return _text_table(caption, ("asked", "given the answer to", "how"), rows)


def _vetoes(run: Run) -> str:
    """Return what vetoes refused: how often each, and the pair that came nearest."""
    vetoed = sorted((missed for missed in run.misses if missed.veto), key=lambda missed: missed.similarity)
    likest = {missed.veto: missed for missed in vetoed}
    rows = [
        (f"{name}: {times:,}", likest[name].question, likest[name].nearest, f"{likest[name].similarity:.2f}")
        for name, times in _largest_first(Counter(missed.veto for missed in vetoed))
    ]
    caption = "Near, but vetoed: how often, and the two questions that were most alike"
    return _text_table(caption, ("veto", "asked", "nearest question answered before", "cosine"), rows)


def _text_table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts, nothing where there are no rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="text"><caption>{html.escape(caption)}</caption><tr>{head}</tr>{body}</table>'


def _cost_plot(demo: Demo) -> str:
    lines = [[float(usd(outcome.cost_so_far)) for outcome in run.outcomes] for run in (demo.plain, demo.layered)]
    top = max(max(line) for line in lines) or 1.0
    count = len(demo.traffic.rows)
    series = [[(n / count, value / top) for n, value in enumerate(line, start=1)] for line in lines]
    return _line_plot(series, ("plain", "with layers"), right=f"{count:,} requests", top=f"${top:,.4f}")


def _latency_plot(demo: Demo) -> str:
    runs = [sorted(outcome.seconds for outcome in run.outcomes) for run in (demo.plain, demo.layered)]
    top = max(run[max(0, int(0.99 * len(run)) - 1)] for run in runs) or 1.0
    series = [[(min(1.0, value / top), n / len(run)) for n, value in enumerate(run, start=1)] for run in runs]
    return _line_plot(series, ("plain", "with layers"), right=f"{top * 1e3:,.0f} ms", top="100 %")


def _savings_plot(demo: Demo) -> str:
    sums = demo.layered.summary.totals
    amounts = (
        ("cache", dollars(sums.cache_saved)),
        ("routing", dollars(sums.routing_saved)),
        ("drafts given up", -dollars(sums.escalated_cost)),
        ("provider prompt cache", dollars(sums.provider_cache_saved)),
    )
    return _bar_plot(
        [
            Bar(name, value, f"{'-' if value < 0 else ''}${abs(value):,.4f}", colour)
            for (name, value), colour in zip(amounts, _COLOURS[1:], strict=True)
        ]
    )


def _answers_plot(demo: Demo) -> str:
    """Return how many requests the cache answered by each tier, and why it left the others to a model."""
    sums = demo.layered.summary.totals
    hits = [(f"cache, {tier}", times, _COLOURS[1]) for tier, times in _largest_first(sums.hits_by_tier)]
    misses = [
        (f"model: {reason.partition(',')[0]}", times, _COLOURS[0])
        for reason, times in _largest_first(sums.misses_by_reason)
    ]
    return _bar_plot([Bar(name, times, f"{times:,}", colour) for name, times, colour in (*hits, *misses)])


def _largest_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _bar_plot(bars: Sequence[Bar]) -> str:
    longest = max((abs(bar.value) for bar in bars), default=0.0) or 1.0
    parts = []
    for place, bar in enumerate(bars):
        y, width = 8 + _BAR * place, (_WIDTH - _LABEL - 90) * abs(bar.value) / longest
        name = bar.name if len(bar.name) <= _LONGEST else f"{bar.name[: _LONGEST - 1]}\u2026"
        parts.append(
            f'<text x="0" y="{y + 15}">{html.escape(name)}</text>'
            f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="20" fill="{bar.colour}"/>'
            f'<text x="{_LABEL + 8 + width:.1f}" y="{y + 15}">{bar.shown}</text>'
        )
    return _svg("".join(parts), 8 + _BAR * len(bars))


def _line_plot(series: Sequence[Sequence[tuple[float, float]]], names: Sequence[str], *, right: str, top: str) -> str:
    """Return lines through points given as shares of both axes."""
    wide, high = _WIDTH - 2 * _PAD, _HEIGHT - 2 * _PAD
    parts = [f'<path d="M{_PAD} {_PAD}V{_HEIGHT - _PAD}H{_WIDTH - _PAD}" fill="none" stroke="currentColor"/>']
    for line, name, colour, place in zip(series, names, _COLOURS, range(len(series)), strict=False):
        thinned = line[:: max(1, len(line) // 400)]
        points = " ".join(f"{_PAD + x * wide:.1f},{_HEIGHT - _PAD - y * high:.1f}" for x, y in (*thinned, line[-1]))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{_PAD + 12 + 110 * place}" y="{_PAD - 14}" fill="{colour}">{name}</text>')
    parts.append(f'<text x="{_WIDTH - _PAD}" y="{_HEIGHT - _PAD + 20}" text-anchor="end">{right}</text>')
    parts.append(f'<text x="{_WIDTH - _PAD}" y="{_PAD - 14}" text-anchor="end">top: {top}</text>')
    return _svg("".join(parts), _HEIGHT)


def _svg(content: str, height: int) -> str:
    style = "font:14px system-ui,sans-serif;fill:currentColor"
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><g style="{style}">{content}</g></svg>'
