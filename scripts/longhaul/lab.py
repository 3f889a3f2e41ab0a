"""Machines on emulated links: `longhaul lab --hold`, and what it takes to run a command inside of one."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import subprocess
from typing import Any

ANSWER_SECONDS = 60.0  # it builds its network, or answers, within that, however busy the machine is
END_SECONDS = 30.0


class LabError(Exception):
    """The lab did not start: its own sentence and exit code."""

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


class Lab:
    """A scenario's network, which is there until `close`. It dies with this process, however that ends: its stdin does.

    `peers` holds what `longhaul lab --hold` says of each machine: `address`, `enter` (how a command line begins that
    runs inside of it), `rtt_seconds` and more.
    """

    def __init__(self, binary: os.PathLike | str, scenario: pathlib.Path, environment: dict[str, str] | None = None):
        # Not in our process group: a Ctrl-C is for whoever uses the network, which must outlive them.
        self.holder = subprocess.Popen(
            [str(binary), "lab", "--hold", str(scenario)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            process_group=0,
        )
        self._kept_up = True  # in all that `stats` was told since `kept_up` was asked
        line = self._line()
        if not line:
            raise self._failure()
        self.peers: dict[str, dict[str, Any]] = json.loads(line)["peers"]

    def _line(self) -> str:
        """Its next line; empty when it has ended, or is silent for too long."""
        assert self.holder.stdout is not None
        readable, _, _ = select.select([self.holder.stdout], [], [], ANSWER_SECONDS)
        return self.holder.stdout.readline() if readable else ""

    def _failure(self) -> LabError:
        """Why it did not start; it has ended."""
        try:
            words = self.holder.communicate(timeout=END_SECONDS)[1]
        except subprocess.TimeoutExpired:
            self.holder.kill()
            words = self.holder.communicate()[1]
        sentence = words.strip().removeprefix("longhaul: ")
        return LabError(sentence or "the lab said nothing", max(1, self.holder.returncode))

    def enter(self, peer: str, *command: object) -> list[str]:
        """The command line that runs `command` inside of that machine, as a user without capabilities."""
        return [*self.peers[peer]["enter"], *map(str, command)]

    def stats(self) -> dict[str, Any]:
        """What the emulator did since the last question; empty when it has died."""
        assert self.holder.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.holder.stdin.write("\n")
            self.holder.stdin.flush()
            stats = json.loads(self._line())
            self._kept_up = self._kept_up and bool(stats["kept_up"])
            return stats
        self._kept_up = False
        return {}

    def kept_up(self) -> bool:
        """Whether the emulator kept to its times since the last question: otherwise figures mean nothing."""
        self.stats()
        kept_up, self._kept_up = self._kept_up, True
        return kept_up

    def close(self) -> None:
        assert self.holder.stdin is not None
        with contextlib.suppress(OSError):
            self.holder.stdin.close()
        try:
            self.holder.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.holder.kill()
            self.holder.wait()
