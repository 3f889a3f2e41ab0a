"""Runs several daemons on this machine as one run: founder, joiners, and faults on purpose for demonstrations.

Nothing outlives the launcher: each daemon holds the reading end of a pipe whose end of file means exit
(`--die-with-fd`), and asks the kernel for a signal when its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from typing import IO, Any

from longhaul import lab
from longhaul.events import LAUNCHER, LAUNCHER_FILE, Happening, RunDirectory, RunView
from longhaul.table import Screen

POLL_SECONDS = 0.1
READY_SECONDS = 60.0
LEAVE_SECONDS = 40.0  # a daemon gives itself 30 to write its checkpoint and say goodbye
LAST_WORDS = 3
PR_SET_PDEATHSIG = 1


class LaunchError(Exception):
    """Something that ends the launch: a sentence, and the exit code that goes with it."""

    def __init__(self, sentence: str, code: int = 1):
        super().__init__(sentence)
        self.code = code


@dataclasses.dataclass
class Trigger:
    """When a fault happens: at a committed round, at a share of the run's rounds, or seconds after the start."""

    peer: str
    kind: str  # round, percent or seconds
    value: float
    done: bool = False

    def due(self, view: RunView, elapsed: float) -> bool:
        if self.done:
            return False
        if self.kind == "seconds":
            return elapsed >= self.value
        if self.kind == "percent":
            return view.rounds_total is not None and view.round * 100 >= self.value * view.rounds_total
        return view.round >= self.value


def parse_trigger(text: str) -> Trigger:
    """peer-2@round:40, peer-2@percent:50, peer-2@seconds:30"""
    match = re.fullmatch(r"(peer-\d+)@(round|percent|seconds):(\d+(?:\.\d+)?)", text)
    if not match or (match.group(2) == "round" and "." in match.group(3)):
        raise LaunchError(f"'{text}' is no fault; write for example peer-2@round:40 or peer-2@percent:50", 2)
    return Trigger(match.group(1), match.group(2), float(match.group(3)))


@dataclasses.dataclass
class Options:
    """What to launch. `founder_args` go to `longhaul run`, `peer_args` to every daemon."""

    config: pathlib.Path
    peers: int
    directory: pathlib.Path
    binary: pathlib.Path
    founder_args: list[str] = dataclasses.field(default_factory=list)
    peer_args: list[str] = dataclasses.field(default_factory=list)
    kills: list[Trigger] = dataclasses.field(default_factory=list)
    late: list[Trigger] = dataclasses.field(default_factory=list)
    restarts: list[Trigger] = dataclasses.field(default_factory=list)
    max_seconds: float | None = None
    min_peers: int | None = None  # None: as wanted_peers says
    scenario: pathlib.Path | None = None  # of the network on whose machines they run; None: on this one, by loopback


def find_binary(named: str | None = None) -> pathlib.Path:
    """--binary, LONGHAUL_BINARY, this tree's release build, or the PATH."""
    named = named or os.environ.get("LONGHAUL_BINARY")
    tree = pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "longhaul"
    on_path = pathlib.Path(shutil.which("longhaul") or "/nonexistent")
    for candidate in [pathlib.Path(named)] if named else [tree, on_path]:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    where = named or str(tree)
    raise LaunchError(
        f"{where} is not there; build it with: cmake --preset release && cmake --build --preset release", 69
    )


class Daemon:
    """One child process: its log files, its state directory, and what it said last."""

    def __init__(self, name: str, directory: pathlib.Path):
        self.name = name
        self.directory = directory
        self.stdout = directory / "stdout.log"
        self.stderr = directory / "stderr.log"
        self.enter: list[str] = []  # how its command line begins, where it has a machine of its own
        self.listen = "127.0.0.1:0"
        self.process: subprocess.Popen[bytes] | None = None
        self.command: list[str] = []
        self.ticket = ""  # given to a joiner on its stdin
        self.killed = False
        self.kills = 0  # in all its lives
        self.asked = False  # to end, by SIGTERM
        self.code: int | None = None  # of the ended process; 128 + n for signal n
        self.ready: dict[str, Any] | None = None

    def spawn(self, command: list[str], pipe: int) -> None:
        """Starts `command`, which reads the ticket from its stdin: other users can read a command line."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # the ticket in stdout.log is a password
        self.command, self.killed, self.asked, self.code, self.ready = command, False, False, None, None
        parent = os.getpid()
        prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: only the call happens after it

        def die_with_parent() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        with self.stdout.open("wb") as out, self.stderr.open("ab") as err:
            self.process = subprocess.Popen(
                [*command, "--die-with-fd", str(pipe)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                pass_fds=(pipe,),
                process_group=0,
                preexec_fn=die_with_parent,
            )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(self.ticket.encode() + b"\n")  # far less than a pipe holds

    @property
    def running(self) -> bool:
        return self.process is not None and self.code is None

    def reap(self) -> bool:
        """Whether the process ended since the last look."""
        if self.process is None or self.code is not None:
            return False
        code = self.process.poll()
        if code is None:
            return False
        self.code = code if code >= 0 else 128 - code
        if self.asked and code == -signal.SIGTERM:
            self.code = 0  # it was asked before it could say goodbye
        return True

    def read_ready(self) -> dict[str, Any] | None:
        """The ready line, once it is complete."""
        if self.ready is None and self.stdout.exists():
            first, newline, _ = self.stdout.read_bytes().partition(b"\n")
            if newline:
                with contextlib.suppress(ValueError):
                    line = json.loads(first)
                    if isinstance(line, dict) and line.get("ready") is True:
                        self.ready = line
        return self.ready

    def last_words(self) -> str:
        """The end of its stderr: why it died, in its own words."""
        if not self.stderr.exists():
            return ""
        lines = [s for s in self.stderr.read_text(errors="replace").splitlines() if s.strip()]
        return " / ".join(lines[-LAST_WORDS:])

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.asked = self.asked or number == signal.SIGTERM
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class Launcher:
    """Starts the daemons, shows the run, performs the faults, ends everything. `run` returns the worst exit code."""

    def __init__(self, options: Options, screen: Screen):
        self.options = options
        self.screen = screen
        self.directory = options.directory
        self.daemons = [Daemon(f"peer-{i}", self.directory / f"peer-{i}") for i in range(options.peers)]
        self.view = RunView()
        self.lab: lab.Lab | None = None
        self.kept_up = True  # the emulated links, if there are any, were as slow as they should be and no slower
        self._events = RunDirectory(self.directory)
        self._started = time.monotonic()
        self._log: IO[str] | None = None
        self._interrupts = 0
        self._stopping_since: float | None = None
        known = {d.name for d in self.daemons}
        for trigger in [*options.kills, *options.late, *options.restarts]:
            if trigger.peer not in known:
                raise LaunchError(f"there is no {trigger.peer} among {options.peers} peers", 2)
        if any(t.peer == "peer-0" for t in options.late):
            raise LaunchError("peer-0 founds the run, so it cannot join late", 2)

    # -- the life of a launch --------------------------------------------------------------------------------------

    def run(self) -> int:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            sentence = f"{self.directory} cannot be the run's folder ({problem.strerror}); name another with --dir"
            raise LaunchError(sentence, 78) from problem
        if list(self.directory.glob("peer-*/events.jsonl")):
            # A second launch in the same place goes on with the run that is there; the launcher's log goes on too.
            self._events.poll()
        self._build_network()
        self._reading, writing = os.pipe()
        previous = {s: signal.signal(s, self._interrupt) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            with (self.directory / LAUNCHER_FILE).open("a", encoding="utf-8") as self._log, self.screen:
                try:
                    self._found()
                    self._join_all()
                    return self._watch()
                finally:
                    self._end_all()
                    self._look()
        finally:
            if self.lab is not None:
                self.kept_up = self.lab.kept_up()
                self.lab.close()
            os.close(writing)
            os.close(self._reading)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _build_network(self) -> None:
        """Makes the scenario's machines, one a daemon in the order of its file."""
        scenario = self.options.scenario
        if scenario is None:
            return
        try:
            self.lab = lab.Lab(self.options.binary, scenario)
        except lab.LabError as problem:
            raise LaunchError(str(problem), problem.code) from None
        if len(self.lab.peers) < len(self.daemons):
            have = len(self.lab.peers)
            self.lab.close()
            raise LaunchError(f"{scenario} has {have} peers, and {len(self.daemons)} were asked for", 2)
        for daemon, machine in zip(self.daemons, self.lab.peers, strict=False):
            daemon.enter = self.lab.enter(machine)
            daemon.listen = f"{self.lab.peers[machine]['address']}:0"

    def _found(self) -> None:
        command = [str(self.options.binary), "run", str(self.options.config)]
        least = wanted_peers(self.options)
        members = [] if least is None else ["--min-peers", str(least)]
        self._spawn(self.daemons[0], command, [*members, *self.options.founder_args])
        self._wait_ready(self.daemons[0])

    def _join_all(self) -> None:
        late = {t.peer for t in self.options.late}
        for daemon in self.daemons[1:]:
            if daemon.name not in late:
                self._join(daemon)

    def _join(self, daemon: Daemon) -> None:
        # Any member will do: the founder may be gone.
        known = next(d for d in self.daemons if d.ready and (d.running or d is self.daemons[0]))
        daemon.ticket = str((known.ready or {})["ticket"])
        self._spawn(daemon, [str(self.options.binary), "join", "-"], [])

    def _spawn(self, daemon: Daemon, command: list[str], more: list[str]) -> None:
        again = daemon.process is not None
        common = ["--listen", daemon.listen, "--state-dir", str(daemon.directory), "--name", daemon.name]
        common += ["--json-ready"]
        daemon.spawn([*daemon.enter, *command, *common, *self.options.peer_args, *more], self._reading)
        self._note("spawned", daemon, command=without_secret(daemon.command), again=again)

    def _wait_ready(self, daemon: Daemon) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while daemon.read_ready() is None:
            if daemon.reap():
                self._note_exit(daemon)
                words = daemon.last_words() or "it said nothing"
                sentence = f"{daemon.name} ended with {daemon.code} before it was ready: {words}"
                raise LaunchError(sentence, daemon.code or 1)
            if self._stopping_since is not None:
                raise LaunchError("interrupted", 0)
            if time.monotonic() > deadline:
                raise LaunchError(f"{daemon.name} is not ready after {READY_SECONDS:.0f} s; see {daemon.stderr}", 69)
            self._look()
            time.sleep(POLL_SECONDS)
        if not isinstance((daemon.ready or {}).get("ticket"), str):
            raise LaunchError(f"{daemon.name} printed no ticket: {daemon.ready}", 76)

    def _watch(self) -> int:
        while any(d.running for d in self.daemons):
            self._look()
            self._reap()
            self._perform_faults()
            self._stop_when_asked()
            time.sleep(POLL_SECONDS)
        self._look()
        return self.worst()

    def worst(self) -> int:
        """The worst exit code; a daemon that was killed on purpose does not count."""
        return max((d.code or 0 for d in self.daemons if not d.killed), default=0)

    # -- steps of the loop -------------------------------------------------------------------------------------------

    def _look(self) -> list[Happening]:
        news = self.view.feed(self._events.poll())
        self.screen.show(self.view, news)
        return news

    def _reap(self) -> None:
        for daemon in self.daemons:
            if daemon.reap():
                self._note_exit(daemon)
                if daemon is self.daemons[0] and not daemon.killed and not self._restart_pending(daemon):
                    # The coordinator has ended. At a run's end the others finish by themselves; else they are asked to.
                    if daemon.code:
                        self._tell_all(signal.SIGTERM)
                    self._begin_stop()
                elif daemon.code and not daemon.killed and self.view.round == 0 and self._stopping_since is None:
                    # The first round waits for it, for ever.
                    self._tell_all(signal.SIGTERM)
                    self._begin_stop()

    def _restart_pending(self, daemon: Daemon) -> bool:
        return any(t.peer == daemon.name and not t.done for t in self.options.restarts)

    def _perform_faults(self) -> None:
        elapsed = time.monotonic() - self._started
        if self._stopping_since is not None:
            return
        by_name = {d.name: d for d in self.daemons}
        for trigger in self.options.late:
            if trigger.due(self.view, elapsed):
                trigger.done = True
                self._join(by_name[trigger.peer])
        for trigger in self.options.kills:
            daemon = by_name[trigger.peer]
            if trigger.due(self.view, elapsed) and daemon.running:
                trigger.done, daemon.killed, daemon.kills = True, True, daemon.kills + 1
                daemon.signal(signal.SIGKILL)
                assert daemon.process is not None
                daemon.process.wait()
                daemon.reap()
                self._note("killed", daemon, round=self.view.round + 1)
        for trigger in self.options.restarts:
            daemon = by_name[trigger.peer]
            if trigger.due(self.view, elapsed) and not daemon.running and daemon.process is not None:
                trigger.done = True
                # The same command, but where it listened before: the others look for it there.
                listen = (daemon.ready or {}).get("listen", daemon.listen)
                command = [listen if word == daemon.listen else word for word in daemon.command]
                daemon.killed = False
                daemon.spawn(command, self._reading)
                self._note("spawned", daemon, command=without_secret(command), again=True)

    def _stop_when_asked(self) -> None:
        limit = self.options.max_seconds
        if limit is not None and time.monotonic() - self._started > limit and self._stopping_since is None:
            self._tell_all(signal.SIGTERM)
            self._begin_stop()
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > LEAVE_SECONDS:
            self._tell_all(signal.SIGKILL)

    def _begin_stop(self) -> None:
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()

    def _interrupt(self, number: int, frame: object) -> None:
        """Once: everybody leaves cleanly. Twice: at once."""
        self._interrupts += 1
        self._begin_stop()
        self._tell_all(signal.SIGTERM if self._interrupts == 1 else signal.SIGKILL)

    def _tell_all(self, number: int) -> None:
        for daemon in self.daemons:
            daemon.signal(number)

    def _end_all(self) -> None:
        """Whatever is left, and why ever: asks, waits, kills."""
        self._tell_all(signal.SIGTERM)
        deadline = time.monotonic() + LEAVE_SECONDS
        while any(d.running for d in self.daemons) and time.monotonic() < deadline and self._interrupts < 2:
            self._reap()
            time.sleep(POLL_SECONDS)
        self._tell_all(signal.SIGKILL)
        for daemon in self.daemons:
            if daemon.process is not None:
                daemon.process.wait()
        self._reap()

    # -- launcher.jsonl ------------------------------------------------------------------------------------------------

    def _note(self, kind: str, daemon: Daemon, **fields: object) -> None:
        event = {"v": 1, "t": time.time(), "node": LAUNCHER, "event": kind, "peer": daemon.name, **fields}
        assert self._log is not None
        self._log.write(json.dumps(event) + "\n")
        self._log.flush()

    def _note_exit(self, daemon: Daemon) -> None:
        words = daemon.last_words() if daemon.code else ""
        self._note("exited", daemon, code=daemon.code, words=words)

    def summary(self) -> dict[str, Any]:
        """The result as --json prints it."""
        view = self.view
        peers = {}
        for daemon in self.daemons:
            node = view.nodes.get(daemon.name)
            peers[daemon.name] = {
                "exit": daemon.code,
                "killed": daemon.killed,
                "kills": daemon.kills,
                "applied": node.round if node else 0,
                "root": node.root if node else "",
                "loss": node.loss if node else None,
                "wire_sent": node.sent if node else 0,
                "wire_received": node.received if node else 0,
            }
        return {
            "ok": self.worst() == 0 and view.diverged is None,
            "rounds": view.round,
            "seconds": round(view.seconds, 3),
            "eval_loss": view.loss,
            "raw_ratio": view.ratio,
            "diverged": view.diverged,
            "directory": str(self.directory),
            "kept_up": self.kept_up,
            "peers": peers,
        }


def sentence(launcher: Launcher) -> str:
    """The result in one sentence."""
    from longhaul import units

    view = launcher.view
    joined = [h for h in view.happenings if h.kind == "join"]
    killed = [d.name for d in launcher.daemons if d.killed]
    returned = [d.name for d in launcher.daemons if d.kills and not d.killed]
    text = f"{len(launcher.daemons)} peers trained {view.round} rounds in {units.span(view.seconds)}"
    if view.evals:
        text += f": held-out loss {units.loss(view.evals[0].loss)} → {units.loss(view.evals[-1].loss)}"
    text += f", {units.size(view.sent)} sent"
    if view.ratio is not None:
        text += f" ({units.ratio(view.ratio)} less than raw f32 gradients of every step)"
    if killed:
        text += f"; {' and '.join(killed)} {'was' if len(killed) == 1 else 'were'} killed and the others went on"
    if returned:
        text += f"; {' and '.join(returned)} {'was' if len(returned) == 1 else 'were'} killed and started again"
    late = [t.peer for t in launcher.options.late if any(h.node == t.peer for h in joined)]
    if late:
        text += f"; {' and '.join(late)} joined late"
    if view.diverged:
        text += f"; BUT {view.diverged}"
    else:
        text += "; all replicas are equal" if view.round else ""
    return text + "."


def without_secret(command: list[str]) -> str:
    """A command line for a log: a ticket's key is a password."""
    return shlex.join(re.sub(r"^(longhaul://[^#]*#).*", r"\1…", word) for word in command)


def wanted_peers(options: Options) -> int | None:
    """How many members the first round waits for: all that are there from the start. None where somebody said so
    already: RUN.toml, an argument for `longhaul run`, the environment. A run that exists keeps what it was founded
    with."""
    if options.min_peers is not None:
        return options.min_peers
    arguments = [*options.founder_args, *options.peer_args]
    if any(word.startswith(("--min-peers", "peers.min=", "--set=peers.min=")) for word in arguments):
        return None
    earlier = options.directory / LAUNCHER_FILE
    if (options.directory / "peer-0" / "run" / "manifest").exists() and earlier.exists():
        pattern = r'"peer": "peer-0", "command": "[^"]* --min-peers (\d+)'
        found = re.findall(pattern, earlier.read_text(errors="replace"))
        return int(found[-1]) if found else None
    with contextlib.suppress(OSError, ValueError, TypeError):
        if "LONGHAUL_PEERS_MIN" in os.environ or "min" in tomllib.loads(options.config.read_text()).get("peers", {}):
            return None
    gone_early = {t.peer for t in options.late} | {t.peer for t in options.kills if t.kind == "seconds"}
    return max(1, options.peers - len(gone_early - {"peer-0"}))


def default_directory() -> pathlib.Path:
    return pathlib.Path("runs") / time.strftime("%Y%m%d-%H%M%S")


def print_error(text: str) -> None:
    print(f"longhaul launch: {text}", file=sys.stderr)
