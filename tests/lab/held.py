"""Machines on an emulated network for tests, and what runs inside of them."""

import pathlib
import subprocess
import sys

import pytest
from longhaul import lab
from nodes import clean_environment, find_binary


class Lab(lab.Lab):
    """One scenario's network, and the programs that a test started in it."""

    def __init__(self, folder: pathlib.Path, scenario: str):
        self.binary = find_binary()
        self.inside: list[subprocess.Popen] = []
        path = folder / "scenario.toml"
        path.write_text(scenario)
        try:
            super().__init__(self.binary, path, clean_environment(folder))
        except lab.LabError as problem:
            assert problem.code == 69 or "lab" in str(problem), problem
            pytest.skip(f"no network namespaces here: {problem}")

    def run(self, peer: str, program: str, *arguments: object) -> subprocess.Popen:
        """Python in a machine."""
        return self.command(peer, sys.executable, "-c", program, *arguments)

    def server(self, peer: str, program: str, *arguments: object) -> subprocess.Popen:
        """The same, when it has printed its first line, which is {} only."""
        started = self.run(peer, program, *arguments)
        assert started.stdout.readline() == "{}\n"
        return started

    def command(self, peer: str, *words: object, administrator: bool = False) -> subprocess.Popen:
        """Any command in a machine."""
        enter = self.peers[peer]["enter_as_administrator" if administrator else "enter"]
        started = subprocess.Popen([*enter, *map(str, words)], stdout=subprocess.PIPE, text=True)
        self.inside.append(started)
        return started

    def stats(self) -> dict:
        """Since the last call; skips the test when the machine was too busy for its figures to mean anything."""
        stats = super().stats()
        assert stats, "the lab has died"
        if not stats["kept_up"]:
            pytest.skip(f"this machine is too busy for the lab: {stats}")
        return stats

    def close(self) -> None:
        for started in self.inside:
            started.kill()
            started.wait()
        super().close()
