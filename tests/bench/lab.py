"""Machines on emulated links for benchmarks: commands inside of them, and their ends."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGHAUL = ROOT / "build" / "release" / "longhaul"
PYTHON = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT / "scripts"))

from longhaul import lab  # noqa: E402


# Of the benchmarks of deaths: more keys of the peers may follow.
SIX_PEERS = """
[links]
rtt = "100 ms"
[[peer]]
name = "peer"
count = 6
up = "100 Mbit/s"
down = "100 Mbit/s"
"""


def commit() -> str:
    """Of the sources that are measured: what is written about them changes meanwhile."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    return git("describe", "--always") + ("-dirty" if git("status", "--porcelain", "--", ".", ":!docs") else "")


class Lab:
    """A scenario's network for as long as the `with` lasts; what was started in it ends with it."""

    def __init__(self, scenario: str):
        self.folder = tempfile.TemporaryDirectory(prefix="longhaul-bench-")
        path = pathlib.Path(self.folder.name) / "scenario.toml"
        path.write_text(scenario)
        try:
            self.network = lab.Lab(LONGHAUL, path)
        except lab.LabError as problem:
            raise SystemExit(f"bench: {problem}") from None
        self.started: list[subprocess.Popen] = []

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.network.close()
        self.folder.cleanup()

    def address(self, peer: str) -> str:
        return self.network.peers[peer]["address"]

    def start(self, peer: str, *command: object, **options: Any) -> subprocess.Popen:
        words = self.network.enter(peer, *command)
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
        words = [*self.network.peers[peer]["enter_as_administrator"], *map(str, command)]
        return subprocess.run(words, text=True, stdout=subprocess.PIPE, check=True).stdout

    def prefer(self, congestion_control: str) -> None:
        """Of all connections in these machines that do not choose another one, or may not."""
        for peer in self.network.peers:
            try:
                self.administer(peer, "sysctl", "-q", "-w", f"net.ipv4.tcp_congestion_control={congestion_control}")
            except subprocess.CalledProcessError:
                raise SystemExit(
                    f"bench: namespaces may not use {congestion_control} here; as root: "
                    f'sysctl -w net.ipv4.tcp_allowed_congestion_control="reno bbr cubic"'
                ) from None

    def sent_bytes(self) -> dict[str, int]:
        """What each machine sent since the last question, headers included."""
        return dict(zip(self.network.peers, self.network.stats()["sent_bytes"]))

    def kept_up(self) -> bool:
        return self.network.kept_up()
