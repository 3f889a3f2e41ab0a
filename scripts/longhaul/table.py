"""The live view of a run: a table on a terminal (with rich), plain lines elsewhere. Both show a RunView."""

from __future__ import annotations

import re
import sys
import time
from typing import Any, Protocol, TextIO

from longhaul import units
from longhaul.events import Happening, RunView

BARS = "▁▂▃▄▅▆▇█"
STATE_STYLES = {"training": "green", "done": "green", "killed": "bold red", "left": "yellow", "caught up": "cyan"}
REDRAW_SECONDS = 0.25
LINE_SECONDS = 5.0


class Screen(Protocol):
    """Shows a run while it goes on. Used as a context manager."""

    def __enter__(self) -> Screen: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, view: RunView, news: list[Happening]) -> None: ...


def natural(name: str) -> list[Any]:
    """peer-2 before peer-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def sparkline(values: list[float], width: int = 30) -> str:
    """A curve in one line of text: each character is the mean of its part."""
    if len(values) < 2:
        return ""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((v - low) * scale)] for v in values)


def progress(view: RunView) -> str:
    """round 12/100 · held-out loss 2.310 · 4 alive, 4 merged · 31 s"""
    total = f"/{view.rounds_total}" if view.rounds_total else ""
    parts = [f"round {view.round}{total}"]
    if view.loss is not None:
        parts.append(f"held-out loss {units.loss(view.loss)}")
    if view.train_loss is not None:
        parts.append(f"training loss {units.loss(view.train_loss)}")
    merged = f", {view.merged} merged" if view.merged is not None else ""
    parts.append(f"{view.alive} alive{merged}")
    return " · ".join(parts)


def traffic(view: RunView) -> str:
    text = f"{units.size(view.sent)} sent"
    if view.ratio is not None:
        text += f", {units.ratio(view.ratio)} less than raw f32 gradients of every step"
    return text


class PlainScreen:
    """One line for each thing that happened, and one now and then for the run: for logs and pipes."""

    def __init__(self, out: TextIO = sys.stdout, seconds: float = LINE_SECONDS):
        self._out = out
        self._seconds = seconds
        self._next = 0.0
        self._shown: tuple[int, float | None] = (0, None)
        self._last: RunView | None = None

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last is not None and self._shown != (self._last.round, self._last.train_loss):
            self._state(self._last)

    def show(self, view: RunView, news: list[Happening]) -> None:
        self._last = view
        for happening in news:
            self._print(happening.t - (view.started or 0.0), happening.text)
        state = (view.round, view.train_loss)
        first = self._shown[1] is None and state[1] is not None
        if state != self._shown and (first or time.monotonic() >= self._next):
            self._state(view)

    def _state(self, view: RunView) -> None:
        self._shown = (view.round, view.train_loss)
        self._next = time.monotonic() + self._seconds
        self._print(view.seconds, f"{progress(view)} · {traffic(view)}")

    def _print(self, seconds: float, text: str) -> None:
        print(f"{units.span(seconds):>12}  {text}", file=self._out, flush=True)


class RichScreen:
    """The table, redrawn in place."""

    def __init__(self, out: TextIO = sys.stdout):
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=out)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._next = 0.0

    def __enter__(self) -> RichScreen:
        self._live.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self._live.refresh()
        self._live.__exit__(None, None, None)

    def show(self, view: RunView, news: list[Happening]) -> None:
        if news or time.monotonic() >= self._next:
            self._next = time.monotonic() + REDRAW_SECONDS
            self._live.update(draw(view), refresh=True)


def draw(view: RunView) -> Any:
    """The table as something that rich prints."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=False, title_justify="left", caption_justify="left", pad_edge=False)
    table.title = Text(f"{view.name or 'run'} · {progress(view)} · {units.span(view.seconds)}", style="bold")
    for heading in ("peer", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("round", "loss", "sent", "received", "less than raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", max_width=48, no_wrap=True, overflow="ellipsis")
    for name in sorted(view.nodes, key=natural):
        node = view.nodes[name]
        style = STATE_STYLES.get(node.state, "")
        state = Text(node.state, style="bold red" if node.state.startswith("exit") else style)
        dim = "dim" if node.ended and node.state != "done" else ""
        table.add_row(name, state, str(node.round), units.loss(node.loss), units.size(node.sent),
                      units.size(node.received), units.ratio(node.ratio), node.note, style=dim)  # fmt: skip
    if len(view.nodes) > 1:
        table.add_section()
        table.add_row("all", "", str(view.round), units.loss(view.loss or view.train_loss), units.size(view.sent),
                      units.size(view.received), units.ratio(view.ratio), "")  # fmt: skip
    lines: list[Any] = [table]
    curve = sparkline([p.loss for p in view.evals] or [p.loss for p in view.train])
    if curve:
        lines.append(Text(f"{'held-out' if view.evals else 'training'} loss {curve}", style="cyan"))
    start = view.started or 0.0
    for happening in view.happenings[-6:]:
        bad = happening.kind in ("kill", "exit", "diverged")
        lines.append(Text(f"{units.span(happening.t - start):>10}  {happening.text}", style="red" if bad else ""))
    return Group(*lines)


def make_screen(out: TextIO = sys.stdout, plain: bool = False) -> Screen:
    """The table where `out` is a terminal and rich is there, else lines."""
    if not plain and out.isatty():
        try:
            return RichScreen(out)
        except ImportError:
            print("(install rich for a live table)", file=out)
    return PlainScreen(out)
