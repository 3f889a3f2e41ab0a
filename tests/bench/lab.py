"""Machines on emulated links for benchmarks: `longhaul lab --hold` and commands inside of its machines."""

from __future__ import annotations

import json
import pathlib
import subprocess
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGHAUL = ROOT / "build" / "release" / "longhaul"
PYTHON = ROOT / ".venv" / "bin" / "python"


class Lab:
    """A scenario's network for as long as the `with` lasts; what was started in it ends with it."""

    def __init__(self, scenario: str):
        self.folder = tempfile.TemporaryDirectory(prefix="longhaul-bench-")
        path = pathlib.Path(self.folder.name) / "scenario.toml"
        path.write_text(scenario)
        command = [str(LONGHAUL), "lab", "--hold", str(path)]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        line = self.holder.stdout.readline()
        if not line:
            raise SystemExit("bench: the lab did not start; its sentence is above")
        self.peers: dict[str, dict[str, Any]] = json.loads(line)["peers"]
        self.started: list[subprocess.Popen] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        assert self.holder.stdin is not None
        self.holder.stdin.close()
        self.holder.wait(30)
        self.folder.cleanup()

    def address(self, peer: str) -> str:
        return self.peers[peer]["address"]

    def start(self, peer: str, *command: object, **options: Any) -> subprocess.Popen:
        words = [*self.peers[peer]["enter"], *map(str, command)]
        process = subprocess.Popen(words, text=True, stdin=subprocess.DEVNULL, cwd=self.folder.name, **options)
        self.started.append(process)
        return process

    def run(self, peer: str, *command: object, limit: float = 300) -> str:
        """What the command prints; its failure ends the benchmark."""
        process = self.start(peer, *command, stdout=subprocess.PIPE)
        out, _ = process.communicate(timeout=limit)
        if process.returncode != 0:
            raise SystemExit(f"bench: {' '.join(map(str, command))} ended with {process.returncode}\n{out}")
        return out

    def administer(self, peer: str, *command: object) -> str:
        """As the machine's administrator; what it prints."""
        words = [*self.peers[peer]["enter_as_administrator"], *map(str, command)]
        return subprocess.run(words, text=True, stdout=subprocess.PIPE, check=True).stdout

    def stats(self) -> dict[str, Any]:
        """What the emulator did since the last question."""
        assert self.holder.stdin is not None and self.holder.stdout is not None
        self.holder.stdin.write("\n")
        self.holder.stdin.flush()
        told = json.loads(self.holder.stdout.readline())
        told["sent_bytes"] = dict(zip(self.peers, told["sent_bytes"]))
        return told

    def kept_up(self) -> bool:
        """Whether the emulator kept to its times since the last question: otherwise figures mean nothing."""
        return bool(self.stats()["kept_up"])
