"""Figures from events.jsonl: loss over time and over bytes sent, with what happened to whom."""

from __future__ import annotations

import pathlib
from typing import Any

from longhaul.events import Point, RunView, load

# Okabe and Ito's palette: told apart with any colour vision, and in grey by the order of lightness.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKS = {
    "kill": ("#B00020", "-"),
    "exit": ("#B00020", ":"),
    "down": ("#B00020", ":"),
    "join": ("#555555", "--"),
    "restart": ("#555555", "-."),
}
WORDS = {"kill": "killed", "exit": "ended", "down": "lost", "join": "joins", "restart": "returns"}
MEGABYTE = 1e6


class PlotError(Exception):
    """Why there is no figure."""


def title_of(path: pathlib.Path, view: RunView) -> str:
    return view.name or path.resolve().name


def curve_of(view: RunView) -> tuple[list[Point], str]:
    """Held-out loss where there is one, else training loss."""
    return (view.evals, "held-out loss") if len(view.evals) > 1 else (view.train, "training loss")


def plot(directories: list[pathlib.Path], out: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Draws the runs into OUT.png and OUT.svg (default: loss.* in the first directory); returns the two paths."""
    runs = []
    for directory in directories:
        view = load(directory)
        if not view.evals and not view.train:
            raise PlotError(f"{directory} has no events.jsonl with a loss in it")
        runs.append((directory, view))
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot

    style = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.8,
        "axes.axisbelow": True,
        "svg.hashsalt": "longhaul",
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
        draw(axes, runs)
        base = out.with_suffix("") if out else directories[0] / "loss"
        paths = [base.with_suffix(".png"), base.with_suffix(".svg")]
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(paths[0], dpi=150)
            figure.savefig(paths[1], metadata={"Date": None})
        except OSError as problem:
            sentence = f"{base} cannot be written ({problem.strerror}); name another place with --out"
            raise PlotError(sentence) from problem
        finally:
            pyplot.close(figure)
    return paths


def draw(axes: Any, runs: list[tuple[pathlib.Path, RunView]]) -> None:
    over_time, over_bytes = axes
    single = len(runs) == 1
    ends: list[tuple[float, str, str]] = []
    kinds = set()
    for index, (path, view) in enumerate(runs):
        points, kind = curve_of(view)
        kinds.add(kind)
        colour = COLOURS[index % len(COLOURS)]
        start = view.started or 0.0
        seconds = [p.t - start for p in points]
        sent = [p.sent / MEGABYTE for p in points]
        losses = [p.loss for p in points]
        if single and kind == "held-out loss" and view.train:
            for x_of, axis in ((lambda p: p.t - start, over_time), (lambda p: p.sent / MEGABYTE, over_bytes)):
                axis.plot([x_of(p) for p in view.train], [p.loss for p in view.train], ".", color="#9A9A9A",
                          markersize=2, alpha=0.35, rasterized=True)  # fmt: skip
        # A dense training curve of all nodes reads as a cloud: points. Held-out loss is one curve: a line.
        line = "-" if kind == "held-out loss" else "."
        over_time.plot(seconds, losses, line, color=colour, linewidth=2, markersize=3)
        over_bytes.plot(sent, losses, line, color=colour, linewidth=2, markersize=3)
        label = f"{losses[-1]:.3f}" if single else f"{title_of(path, view)} {losses[-1]:.3f}"
        ends.append((losses[-1], label, colour))
        for axis, x in ((over_time, seconds[-1]), (over_bytes, sent[-1])):
            axis.annotate(label, (x, losses[-1]), xytext=(5, 0), textcoords="offset points", color=colour,
                          va="center", fontweight="bold", annotation_clip=False)  # fmt: skip
        if single:
            mark(over_time, over_bytes, view, start)
    over_time.set_xlabel("seconds since the start")
    over_bytes.set_xlabel("megabytes sent by all peers together")
    over_time.set_ylabel("loss" if single else " / ".join(sorted(kinds)))
    if single:
        path, view = runs[0]
        ratio = f", {view.ratio:.0f}× less than raw f32 gradients" if view.ratio else ""
        over_time.set_title(f"{title_of(path, view)}: {view.round} rounds, {len(view.nodes)} peers", loc="left")
        over_bytes.set_title(f"{view.sent / MEGABYTE:.1f} MB sent{ratio}", loc="left")
        if "held-out loss" in kinds and view.train:
            over_time.plot([], [], "-", color=COLOURS[0], linewidth=2, label="held-out loss of the anchor")
            over_time.plot([], [], ".", color="#9A9A9A", label="training loss of each peer")
            over_time.figure.legend(frameon=False, loc="outside lower left", ncols=2)
    else:
        over_time.set_title("over time", loc="left")
        over_bytes.set_title("over bytes", loc="left")


def mark(over_time: Any, over_bytes: Any, view: RunView, start: float) -> None:
    """A vertical line, with its words, for each thing that happened to a peer."""
    shown = [h for h in view.happenings if h.kind in MARKS and not (h.kind == "join" and early(view, h.t))]
    for row, happening in enumerate(shown[:8]):
        colour, line = MARKS[happening.kind]
        sent = max((p.sent for p in [*view.train, *view.evals] if p.t <= happening.t), default=0)
        words = WORDS[happening.kind]
        for axis, x in ((over_time, happening.t - start), (over_bytes, sent / MEGABYTE)):
            axis.axvline(x, color=colour, linestyle=line, linewidth=1.2)
            axis.annotate(f"{happening.node} {words}", (x, 0.04 + 0.07 * (row % 4)), xycoords=("data", "axes fraction"),
                          xytext=(3, 0), textcoords="offset points", color=colour, fontsize=8.5)  # fmt: skip


def early(view: RunView, t: float) -> bool:
    """Joining before the first loss is how a run starts, nothing to mark."""
    first = min((p.t for p in [*view.train[:1], *view.evals[:1]]), default=t)
    return t <= first
