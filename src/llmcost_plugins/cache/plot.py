"""A calibration's curve as a small picture."""

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcost_plugins.cache.calibration import Calibration

_WIDTH, _HEIGHT, _EDGE = 460, 240, 44
_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626", "#0891b2", "#64748b")


def curve_svg(calibration: "Calibration") -> str:
    """Return the hit rate over the upper bound of the error, one line a category, as SVG."""
    points = [point for curve in calibration.curves.values() for point in curve]
    if not points:
        return ""
    right = min(1.0, max(4 * calibration.max_error, 0.01))
    top = max(max((p.hit_rate for p in points if p.error_bound <= right), default=0.0), 0.05)

    def place(error: float, hits: float) -> str:
        x = _EDGE + (_WIDTH - 2 * _EDGE) * min(error / right, 1.0)
        return f"{x:.1f},{_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * min(hits / top, 1.0):.1f}"

    lines = []
    for colour, (name, curve) in zip(_COLOURS * 9, calibration.curves.items(), strict=False):
        path = " ".join(place(p.error_bound, p.hit_rate) for p in curve if p.error_bound <= right)
        lines.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}"><title>{escape(name)}</title></polyline>'
        )
    limit = place(calibration.max_error, 0).split(",")[0]
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" font-size="11" font-family="sans-serif">'
        f'<rect x="{_EDGE}" y="{_EDGE}" width="{_WIDTH - 2 * _EDGE}" height="{_HEIGHT - 2 * _EDGE}" fill="none" '
        f'stroke="#cbd5e1"/><line x1="{limit}" x2="{limit}" y1="{_EDGE}" y2="{_HEIGHT - _EDGE}" stroke="#dc2626" '
        f'stroke-dasharray="4"/>{"".join(lines)}'
        f'<text x="{_EDGE}" y="{_HEIGHT - 14}">wrong answers of all requests, upper bound: 0 to {right:.1%}</text>'
        f'<text x="{_EDGE}" y="{_EDGE - 12}">answered from the cache: 0 to {top:.0%}</text></svg>'
    )
