"""`longhaul lab --hold` for tests: machines on an emulated network, and what runs inside of them."""

import json
import pathlib
import subprocess
import sys

import pytest
from nodes import PATIENCE, clean_environment, find_binary
from pace import exit_code


class Lab:
    """`longhaul lab --hold` for one scenario."""

    def __init__(self, folder: pathlib.Path, scenario: str):
        self.binary = find_binary()
        path = folder / "scenario.toml"
        path.write_text(scenario)
        command = [str(self.binary), "lab", str(path), "--hold"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=clean_environment(folder), **pipes)
        line = self.process.stdout.readline()
        if not line:
            sentence = self.process.stderr.read().strip()
            assert self.process.wait() == 69 or "lab" in sentence, sentence
            pytest.skip(f"no network namespaces here: {sentence}")
        self.peers = json.loads(line)["peers"]
        self.inside: list[subprocess.Popen] = []

    def run(self, peer: str, program: str, *arguments: object) -> subprocess.Popen:
        """Python in a machine; returns when it prints its first line, if that is {} only."""
        words = [*self.peers[peer]["enter"], sys.executable, "-c", program, *map(str, arguments)]
        started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.inside.append(started)
        return started

    def server(self, peer: str, program: str, *arguments: object) -> subprocess.Popen:
        started = self.run(peer, program, *arguments)
        assert started.stdout.readline() == "{}\n"
        return started

    def stats(self) -> dict:
        """Since the last call; skips the test when the machine was too busy for its figures to mean anything."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        stats = json.loads(self.process.stdout.readline())
        if not stats["kept_up"]:
            pytest.skip(f"this machine is too busy for the lab: {stats}")
        return stats

    def end(self) -> None:
        for started in self.inside:
            started.kill()
            started.wait()
        if self.process.poll() is None:
            self.process.stdin.close()
            exit_code(self.process, PATIENCE)

    def command(self, peer: str, *words: object, administrator: bool = False) -> subprocess.Popen:
        """Any command in a machine."""
        enter = self.peers[peer]["enter_as_administrator" if administrator else "enter"]
        started = subprocess.Popen([*enter, *map(str, words)], stdout=subprocess.PIPE, text=True)
        self.inside.append(started)
        return started
