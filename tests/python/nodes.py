"""Real daemons for tests: started in a temporary folder, ended at the end of the test whatever happens."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
from typing import Any

import pace
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds, of tests and not of what they test: a sanitized binary is slow. The machine's pace stretches them.
PATIENCE = 60.0

# Nobody is down by silence, or left out for being late, however busy the machine is.
QUADRATIC = """
name = "test-run"
[model]
kind = "quadratic"
width = 64
[inner]
optimizer = "sgd"
lr = 0.05
weight_decay = 0.0
steps = 5
warmup = 0
[peers]
admission = "{admission}"
min = {min_peers}
silence_limit = "30 s"
grace = "30 s"
[checkpoint]
every = 2
[stop]
rounds = {rounds}
"""


def find_binary() -> pathlib.Path:
    """LONGHAUL_BINARY, else the release build, else the sanitized one."""
    named = os.environ.get("LONGHAUL_BINARY")
    candidates = [pathlib.Path(named)] if named else [ROOT / "build" / p / "longhaul" for p in ("release", "dev")]
    for path in candidates:
        if path.exists():
            return path
    pytest.skip("longhaul is not built")


def clean_environment(home: pathlib.Path, **more: str) -> dict[str, str]:
    """Nothing of the tester's own configuration."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LONGHAUL_")}
    return environment | {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")} | more


@dataclasses.dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one sentence on stderr; fails when there is none or more than one."""
        lines = [line for line in self.err.splitlines() if line.startswith("longhaul: ")]
        assert len(lines) == 1, self.err
        assert len(lines[0]) > 20, lines[0]
        return lines[0]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def listener() -> socket.socket:
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(PATIENCE)
    return server


def wait_for(condition, what: str, patience: float = PATIENCE):
    if value := pace.wait_until(condition, patience):
        return value
    pytest.fail(f"{what} did not happen within {patience:.0f} s of an idle machine")


class Node:
    """One daemon and its files."""

    def __init__(
        self,
        world: World,
        name: str,
        arguments: list[str],
        pass_fds: tuple[int, ...] = (),
        within: list[str] | None = None,  # words before the command, as those that enter a namespace
    ):
        self.name = name
        self.folder = world.folder / name
        self.folder.mkdir(exist_ok=True)
        self.out, self.err = self.folder / "stdout.log", self.folder / "stderr.log"
        command = [*(within or []), str(world.binary), *arguments]
        command += ["--state-dir", str(self.folder), "--name", name, "--json-ready"]
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=world.environment, pass_fds=pass_fds
            )

    def ready(self) -> dict[str, Any]:
        """The first line of stdout, as soon as it is whole."""

        def line() -> str | None:
            text, newline, _ = self.out.read_text().partition("\n")
            if not newline and self.process.poll() is not None:
                pytest.fail(f"{self.name} ended with {self.process.returncode}: {self.err.read_text()}")
            return text if newline else None

        return json.loads(wait_for(line, f"{self.name} being ready"))

    def wait(self, patience: float = PATIENCE) -> Done:
        code = pace.exit_code(self.process, patience)
        return Done(code, self.out.read_text(), self.err.read_text())

    def end(self) -> dict[str, Any]:
        """What the last line of stdout says of the end."""
        done = self.wait()
        assert done.code == 0, done.err
        told = json.loads(done.out.splitlines()[-1])
        assert told["ended"] is True
        return told

    def stop(self) -> Done:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "events.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")[:-1]
        return [e for e in map(json.loads, lines) if kind in (None, e["event"])]

    def wait_for_round(self, number: int) -> None:
        wait_for(lambda: any(e["round"] >= number for e in self.events("round_committed")), f"round {number}")

    def alive(self) -> bool:
        return self.process.poll() is None


class World:
    """A folder, an environment, and all daemons of one test."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.binary = find_binary()
        self.environment = clean_environment(folder)
        self.nodes: list[Node] = []

    def run(self, *arguments: object, stdin: str = "", **environment: str) -> Done:
        command = [str(self.binary), *map(str, arguments)]
        done = pace.run(command, PATIENCE, input=stdin, cwd=self.folder, env=self.environment | environment)
        return Done(done.returncode, done.stdout, done.stderr)

    def config(self, admission: str = "invite", min_peers: int = 1, rounds: int = 1000000) -> pathlib.Path:
        path = self.folder / "run.toml"
        path.write_text(QUADRATIC.format(admission=admission, min_peers=min_peers, rounds=rounds))
        return path

    def start(
        self, name: str, *arguments: object, pass_fds: tuple[int, ...] = (), within: list[str] | None = None
    ) -> Node:
        node = Node(self, name, [str(a) for a in arguments], pass_fds, within)
        self.nodes.append(node)
        return node

    def found(self, name: str = "founder", *more: object, **config: Any) -> Node:
        return self.start(name, "run", self.config(**config), "--listen", "127.0.0.1:0", *more)

    def join(self, name: str, ticket: str, *more: object) -> Node:
        return self.start(name, "join", ticket, "--listen", "127.0.0.1:0", *more)

    def end(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.process.kill()
            node.process.wait()


def port_of(ready: dict[str, Any]) -> int:
    return int(ready["listen"].rsplit(":", 1)[1])
