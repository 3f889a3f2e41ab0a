"""Reading events.jsonl: one JSON object a line, written by a live daemon, so the last line may be torn.

A run directory holds one state directory a node, each with an events.jsonl, and the launcher's own launcher.jsonl
(same form; node "launcher"). A daemon's file that is full becomes events.jsonl.1, in place of the one before, and a
new one begins: what is read is both, the older first. `RunView` folds all events into what the table, the plots and the
summary show.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

Event = dict[str, Any]

LAUNCHER = "launcher"
LAUNCHER_FILE = "launcher.jsonl"
EVENT_FILE = "events.jsonl"
RUN_OVER = "the run is over"  # why a node leaves whose work is done


class EventFile:
    """Follows one file: `poll` gives the complete new lines. A torn tail waits for its newline; a line that is no
    JSON object is counted in `broken` and skipped. A file that shrank was replaced: it is read again. A file that
    became PATH.1 is read to its end, and the new one after it."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.older = path.with_name(path.name + ".1")
        self.broken = 0
        self._inode: int | None = None
        self._offset = 0
        self._tail = b""

    def poll(self) -> list[Event]:
        """The new lines of both files. Between two polls one file at most is filled."""
        events = []
        try:
            newest = self.path.stat().st_ino
        except OSError:
            return []
        if newest != self._inode:
            if self._inode is None:
                events = self._read(self.older)
            elif self.older.exists() and self.older.stat().st_ino == self._inode:
                events = self._read(self.older)
            self._inode, self._offset, self._tail = newest, 0, b""
        return events + self._read(self.path)

    def _read(self, path: pathlib.Path) -> list[Event]:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:
                    self._offset, self._tail = 0, b""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        self._offset += len(data)
        *lines, self._tail = (self._tail + data).split(b"\n")
        events = []
        for line in lines:
            if not line.strip():
                continue
            try:
                event = json.loads(line)
            except ValueError:
                self.broken += 1
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str) and is_number(event.get("t")):
                events.append(event)
            else:
                self.broken += 1
        return events


class RunDirectory:
    """All event files under a run directory, those that appear later too."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._files: dict[pathlib.Path, EventFile] = {}

    def poll(self) -> list[Event]:
        """New events of all nodes, by time."""
        found = [self.path / EVENT_FILE, self.path / LAUNCHER_FILE, *sorted(self.path.glob(f"*/{EVENT_FILE}"))]
        for path in found:
            if path not in self._files and path.exists():
                self._files[path] = EventFile(path)
        events = []
        for path, file in self._files.items():
            for event in file.poll():
                if path.name == EVENT_FILE and path.parent != self.path:
                    event["node"] = path.parent.name  # a name that this directory does not hold twice
                event.setdefault("node", self.path.name)
                events.append(event)
        return sorted(events, key=lambda e: e["t"])

    @property
    def broken(self) -> int:
        return sum(f.broken for f in self._files.values())

    @property
    def empty(self) -> bool:
        return not self._files


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(event: Event, *names: str) -> float | None:
    """The first of these fields that is a number; JSON null (a NaN) counts as absent."""
    for name in names:
        if is_number(event.get(name)):
            return event[name]
    return None


def count(event: Event, name: str) -> int | None:
    """A field that is a number or a list: how many."""
    value = event.get(name)
    if isinstance(value, list):
        return len(value)
    return int(value) if is_number(value) else None


@dataclasses.dataclass
class NodeView:
    """What is known of one node. Bytes are summed over its rounds; `raw` is what the same exchange would have moved as
    f32 gradients of every inner step (4 bytes a parameter, step and receiver)."""

    name: str
    state: str = "starting"
    round: int = 0
    loss: float | None = None
    sent: int = 0
    received: int = 0
    raw: int = 0
    trains_aloud: bool = False  # `inner` events give its own loss; a commit's is the mean of all
    root: str = ""
    last: float = 0.0
    note: str = ""
    ended: bool = False

    @property
    def ratio(self) -> float | None:
        return self.raw / self.sent if self.raw and self.sent else None


@dataclasses.dataclass
class Point:
    """A loss at a time, after so many rounds and so many bytes sent by all nodes together."""

    t: float
    round: int
    loss: float
    sent: int
    node: str


@dataclasses.dataclass
class Happening:
    """Something that people want to be told: who joined, died, left, failed."""

    t: float
    node: str
    kind: str
    text: str


class RunView:
    """The state of a run after the events so far. `feed` takes them in order of time."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeView] = {}
        self.train: list[Point] = []
        self.evals: list[Point] = []
        self.happenings: list[Happening] = []
        self.started: float | None = None
        self.now = 0.0
        self.round = 0
        self.rounds_total: int | None = None
        self.members: int | None = None
        self.merged: int | None = None
        self.attempts_failed = 0
        self.inner_steps = 0
        self.diverged: str | None = None
        self.name = ""
        self._roots: dict[tuple[int, int], tuple[str, str]] = {}
        self._evaluated: set[tuple[int, int]] = set()
        self._down: set[str] = set()
        self._coordinator = ""
        self._launched = False

    # -- reading ---------------------------------------------------------------------------------------------------

    def node(self, name: str) -> NodeView:
        return self.nodes.setdefault(name, NodeView(name))

    def feed(self, events: Iterable[Event]) -> list[Happening]:
        """Takes events; returns the happenings among them."""
        before = len(self.happenings)
        for event in events:
            self._take(event)
        return self.happenings[before:]

    @property
    def sent(self) -> int:
        return sum(n.sent for n in self.nodes.values())

    @property
    def received(self) -> int:
        return sum(n.received for n in self.nodes.values())

    @property
    def raw(self) -> int:
        return sum(n.raw for n in self.nodes.values())

    @property
    def ratio(self) -> float | None:
        return self.raw / self.sent if self.raw and self.sent else None

    @property
    def seconds(self) -> float:
        return self.now - self.started if self.started is not None else 0.0

    @property
    def alive(self) -> int:
        return sum(not n.ended for n in self.nodes.values())

    @property
    def loss(self) -> float | None:
        """The newest held-out loss."""
        return self.evals[-1].loss if self.evals else None

    @property
    def train_loss(self) -> float | None:
        """Mean of the living nodes' newest training losses."""
        losses = [n.loss for n in self.nodes.values() if n.loss is not None and not n.ended]
        return sum(losses) / len(losses) if losses else None

    # -- folding -----------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        t, name, kind = float(event["t"]), str(event.get("node", "?")), event["event"]
        self.started = t if self.started is None else min(self.started, t)
        self.now = max(self.now, t)
        handler = getattr(self, f"_on_{kind}", None)
        if name == LAUNCHER:
            self._on_launcher(t, event)
        elif handler is not None:
            node = self.node(name)
            node.last = t
            handler(t, node, event)

    def _tell(self, t: float, node: str, kind: str, text: str) -> None:
        self.happenings.append(Happening(t, node, kind, text))

    def _on_launcher(self, t: float, event: Event) -> None:
        self._launched = True
        peer = str(event.get("peer", ""))
        kind = event["event"]
        if kind == "killed":
            node = self.node(peer)
            node.state, node.ended, node.note = "killed", True, f"killed in round {self.round + 1}"
            self._tell(t, peer, "kill", f"{peer} was killed (signal 9) in round {self.round + 1}")
        elif kind == "spawned":
            node = self.node(peer)
            node.state, node.ended = "starting", False
            if event.get("again"):
                self._tell(t, peer, "restart", f"{peer} was started again")
        elif kind == "exited":
            node, code = self.node(peer), event.get("code")
            node.ended = True
            if code == 0:
                node.state = "done"
            elif node.state != "killed":
                node.state, node.note = f"exit {code}", str(event.get("words", ""))
                words = f": {node.note}" if node.note else ""
                self._tell(t, peer, "exit", f"{peer} ended with {code}{words}")

    def _on_started(self, t: float, node: NodeView, event: Event) -> None:
        node.state, node.ended, node.note = "started", False, ""
        self.name = str(event.get("run_name") or self.name)
        self._take_plan(event)

    def _take_plan(self, event: Event) -> None:
        self.inner_steps = int(number(event, "H", "inner_steps") or self.inner_steps)
        total = number(event, "rounds_total", "rounds")
        self.rounds_total = int(total) if total is not None else self.rounds_total

    def _on_plan(self, t: float, node: NodeView, event: Event) -> None:
        self._take_plan(event)

    def _on_joined(self, t: float, node: NodeView, event: Event) -> None:
        """The coordinator's word that it admitted somebody, by name."""
        joiner = str(event.get("name") or node.name)
        self._down.discard(joiner)
        self._tell(t, joiner, "join", f"{joiner} joined" + (f" in round {self.round + 1}" if self.round else ""))

    def _on_left(self, t: float, node: NodeView, event: Event) -> None:
        if "number" in event:
            return  # about another node, which says so itself, or whose death was told
        reason = str(event.get("reason") or "")
        node.ended = True
        if reason == RUN_OVER:
            node.state = "done"
            return
        node.state, node.note = "left", reason
        self._tell(t, node.name, "left", f"{node.name} left: {reason}" if reason else f"{node.name} left")

    def _on_peer_down(self, t: float, node: NodeView, event: Event) -> None:
        """Told once for each death; where a launcher knows better, not at all."""
        peer = str(event.get("name") or event.get("peer") or "?")
        known = self.nodes.get(peer)
        if self._launched or peer in self._down or (known is not None and known.ended):
            return
        self._down.add(peer)
        reason = event.get("reason")
        self._tell(t, peer, "down", f"{node.name} lost {peer}" + (f": {reason}" if reason else ""))

    def _on_coordinator(self, t: float, node: NodeView, event: Event) -> None:
        """Who takes over from another one goes on with the run."""
        if event.get("self") and self.round > 0 and self._coordinator not in ("", node.name):
            self._tell(t, node.name, "coordinator", f"{node.name} coordinates now: still training")
        if event.get("self"):
            self._coordinator = node.name

    def _on_peer_silent(self, t: float, node: NodeView, event: Event) -> None:
        peer = str(event.get("name") or event.get("peer") or "?")
        self._tell(t, peer, "silent", f"{node.name} hears nothing from {peer}: the round goes on without it")

    def _on_cut_off(self, t: float, node: NodeView, event: Event) -> None:
        peer = str(event.get("name") or event.get("peer") or "?")
        self._tell(t, peer, "cut_off", f"{node.name} cuts off {peer}: {event.get('reason') or 'it lies'}")

    def _on_sits_out(self, t: float, node: NodeView, event: Event) -> None:
        peer = str(event.get("name") or event.get("peer") or "?")
        self._tell(t, peer, "sits_out", f"{peer} sits out: {event.get('reason') or 'its payloads do not arrive'}")

    def _on_peer_up(self, t: float, node: NodeView, event: Event) -> None:
        self._down.discard(str(event.get("name") or event.get("peer")))

    def _on_catch_up(self, t: float, node: NodeView, event: Event) -> None:
        node.state = "caught up"
        self._holds(t, node, event)

    def _on_inner(self, t: float, node: NodeView, event: Event) -> None:
        node.state, node.trains_aloud = "training", True
        loss = number(event, "loss")
        if loss is not None:
            self._train_loss(t, node, int(number(event, "round") or self.round), loss)

    def _train_loss(self, t: float, node: NodeView, round_: int, loss: float) -> None:
        node.loss = loss
        self.train.append(Point(t, round_, loss, self.sent, node.name))

    def _on_eval(self, t: float, node: NodeView, event: Event) -> None:
        """One member evaluates and tells the others, so a round's loss is in every file: it counts once."""
        loss, round_ = number(event, "loss"), int(number(event, "round") or self.round)
        key = (int(number(event, "generation") or 0), round_)
        if loss is not None and key not in self._evaluated:
            self._evaluated.add(key)
            self.evals.append(Point(t, round_, loss, self.sent, node.name))

    def _on_attempt_failed(self, t: float, node: NodeView, event: Event) -> None:
        self.attempts_failed += 1
        reason = str(event.get("reason") or "")
        round_ = int(number(event, "round") or self.round + 1)
        self._tell(t, node.name, "attempt", f"round {round_} is tried again" + (f": {reason}" if reason else ""))

    def _on_error(self, t: float, node: NodeView, event: Event) -> None:
        node.note = str(event.get("message") or event.get("error") or event.get("text") or "error")

    def _on_round_committed(self, t: float, node: NodeView, event: Event) -> None:
        round_ = int(number(event, "round") or 0)
        node.state, node.ended = "training", False
        node.sent += int(number(event, "wire_sent") or 0)
        node.received += int(number(event, "wire_received") or 0)
        members, merged = count(event, "members"), count(event, "merged")
        node.raw += int(number(event, "raw_bytes") or 0)
        loss = number(event, "loss")
        if loss is not None and not node.trains_aloud:
            self._train_loss(t, node, round_, loss)
        if round_ >= self.round:
            self.round, self.members, self.merged = round_, members, merged
        self._holds(t, node, event)

    def _holds(self, t: float, node: NodeView, event: Event) -> None:
        """The anchors of all replicas are equal after every commit, or the run is broken and it must be seen."""
        round_, root = int(number(event, "round") or 0), event.get("root")
        if round_ >= node.round:
            node.round, node.root = round_, str(root or node.root)
        if not root:
            return
        key = (int(number(event, "generation") or 0), round_)
        first = self._roots.setdefault(key, (str(root), node.name))
        if first[0] != root and self.diverged is None:
            self.diverged = f"{node.name} and {first[1]} differ after round {round_}"
            self._tell(t, node.name, "diverged", f"REPLICAS DIVERGED: {self.diverged}")


def load(path: pathlib.Path) -> RunView:
    """The whole of a run directory (or of one events.jsonl's folder)."""
    view = RunView()
    view.feed(RunDirectory(path).poll())
    return view


def follow(path: pathlib.Path) -> Iterator[tuple[RunView, list[Happening]]]:
    """Yields the view each time it is asked for, with what happened since."""
    view, directory = RunView(), RunDirectory(path)
    while True:
        yield view, view.feed(directory.poll())
