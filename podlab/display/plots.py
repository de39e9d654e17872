"""Values as Plotly figures: plain dictionaries that any front end with a Plotly renderer draws; pure.

Backgrounds are clear and the grey of the text keeps a contrast of at least 4:1 on Lab's light and on its dark page, so
one figure suits both and a saved notebook looks right whichever theme it is opened in.
"""

from __future__ import annotations

from typing import Any

from podlab.commands.results import BenchReport
from podlab.loadtest import Level, Spread

MIME = "application/vnd.plotly.v1+json"
_INK, _GRID = "#7b7b7b", "rgba(128,128,128,0.25)"
_BLUE, _ORANGE, _GREEN, _RED = "#3b82c4", "#d9822b", "#3d9b5c", "#c94a4a"


def figure(value: Any) -> dict[str, Any] | None:
    """The figure of a value, None for one that is not drawn."""
    return _bench(value) if isinstance(value, BenchReport) and value.levels else None


def _bench(report: BenchReport) -> dict[str, Any]:
    """Left what comes out, right how long one waits, over the loads in the order they were sent."""
    names = [_load(level) for level in report.levels]
    traces = [
        _line(names, [level.output_tokens_per_s for level in report.levels], "output tokens/s", _BLUE),
        *_pair(names, [level.ttft for level in report.levels], "TTFT", _ORANGE),
        *_pair(names, [level.tpot for level in report.levels], "TPOT", _GREEN),
        *_pair(names, [level.e2e for level in report.levels], "E2E", _RED),
    ]
    layout = {
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"color": _INK},
        "height": 320, "margin": {"l": 60, "r": 20, "t": 20, "b": 40}, "legend": {"orientation": "h", "y": -0.15},
        "xaxis": _axis("", domain=[0, 0.44]), "yaxis": _axis("tokens/s", rangemode="tozero"),
        "xaxis2": _axis("", domain=[0.56, 1], anchor="y2"),
        "yaxis2": _axis("milliseconds", type="log", anchor="x2"),
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _pair(names: list[str], spreads: list[Spread], what: str, colour: str) -> list[dict[str, Any]]:
    return [
        _line(names, [_ms(spread.p50_s) for spread in spreads], f"{what} p50", colour, axis="2"),
        _line(names, [_ms(spread.p99_s) for spread in spreads], f"{what} p99", colour, axis="2", dash="dot"),
    ]


def _line(
    x: list[str], y: list[float | None], name: str, colour: str, *, axis: str = "", dash: str = "solid"
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "xaxis": f"x{axis}",
        "yaxis": f"y{axis}", "line": {"color": colour, "dash": dash}, "marker": {"color": colour},
    }  # fmt: skip


def _axis(title: str, **more: Any) -> dict[str, Any]:
    lines = {"gridcolor": _GRID, "linecolor": _GRID, "zerolinecolor": _GRID}
    return {"title": {"text": title}, "type": "linear" if title else "category"} | lines | more


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _load(level: Level) -> str:
    return f"{level.rate_per_s:g}/s" if level.rate_per_s is not None else f"{level.concurrency} at once"
