"""A flood of strangers while a run goes on: round time, memory and control, before and during it

usage: scripts/bench strangers [--seconds N] [--half-open N] [--rate N] [--peers N] [--open]

Four daemons on loopback train a quadratic whose steps are paced, so that a round's time is not the processors'. Then
strangers come to the founder from all over 127.0.0.0/8: first as many connections as --half-open says, as fast as they
are taken, then --rate new ones a second until --seconds are over. A third says nothing, a third sends one byte, a third
a whole hello, and then nothing. Whoever is hung up on is replaced by the new ones. The founder's figures are shown:
the time of its rounds, its greatest memory, and how long a request to its control socket and a round trip of its links
take. At the end, while the flood goes on, one more daemon joins. --open: in an open run, where no secret tells
members from strangers.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGHAUL = ROOT / "build" / "release" / "longhaul"
MIB = 1 << 20
IP_BIND_ADDRESS_NO_PORT = 24

RUN = """
name = "strangers"
[model]
kind = "quadratic"
width = 200000
[inner]
optimizer = "sgd"
lr = 0.02
weight_decay = 0.0
steps = 20
warmup = 0
[peers]
admission = "{admission}"
min = {peers}
[eval]
every = 0
[stop]
rounds = 1000000
"""


class Daemon:
    def __init__(self, folder: pathlib.Path, name: str, *words: object):
        self.folder = folder / name
        self.folder.mkdir()
        self.out = self.folder / "stdout.log"
        command = [LONGHAUL, *words, "--state-dir", self.folder, "--name", name, "--threads", 1, "--json-ready"]
        command += ["--set", "node.step_time=50 ms", "--listen", "127.0.0.1:0"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LONGHAUL_")}
        with self.out.open("wb") as out, (self.folder / "stderr.log").open("wb") as err:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
            )

    def ready(self, patience: float = 60) -> dict[str, Any]:
        until = time.monotonic() + patience
        while "\n" not in self.out.read_text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"bench: a daemon did not start: {(self.folder / 'stderr.log').read_text()}")
            time.sleep(0.01)
        return json.loads(self.out.read_text().partition("\n")[0])

    def rounds(self) -> list[tuple[float, int]]:
        """(time, round) of each commit."""
        lines = (self.folder / "events.jsonl").read_text().split("\n")[:-1]
        events = [json.loads(line) for line in lines if '"round_committed"' in line]
        return [(e["t"], e["round"]) for e in events]

    def memory(self) -> int:
        """Bytes in memory now."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise SystemExit("bench: the daemon died")

    def cpu_seconds(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Watch:
    """What one daemon shows, looked at 20 times a second by a thread."""

    def __init__(self, daemon: Daemon):
        self.daemon = daemon
        self.requests: list[float] = []
        self.round_trips: list[float] = []
        self.memory: list[int] = []
        self.last: dict[str, Any] = {}
        self.begun, self.cpu = time.monotonic(), daemon.cpu_seconds()
        self.first = daemon.rounds()[-1][0]
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self) -> None:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.daemon.folder / "control.sock"))
        client.settimeout(30)
        answers = client.makefile("rb")
        while not self.ending.wait(0.05):
            begun = time.monotonic()
            client.sendall(b'{"do":"status"}\n')
            line = answers.readline()
            self.requests.append(time.monotonic() - begun)
            self.last = json.loads(line)["status"]
            self.round_trips += [p["rtt_seconds"] for p in self.last["peers"] if p["rtt_seconds"] > 0]
            self.memory.append(self.daemon.memory())
        client.close()

    def end(self) -> dict[str, float]:
        self.ending.set()
        self.thread.join()
        times = [t for t, _ in self.daemon.rounds() if t >= self.first]
        lengths = [b - a for a, b in zip(times, times[1:])]
        return {
            "rounds": len(lengths),
            "round": statistics.mean(lengths),
            "memory": max(self.memory) / MIB,
            "request": p99(self.requests),
            "round_trip": p99(self.round_trips),
            "cpu": (self.daemon.cpu_seconds() - self.cpu) / (time.monotonic() - self.begun),
        }


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def hello(run: str) -> bytes:
    """A right one, of a node that dials for the first time (net/PROTOCOL.md §2)."""
    return b"LONGHAUL" + bytes([1, 0, 1, 0, 1, 0, 0, 0]) + bytes(4) + bytes.fromhex(run) + bytes(16) + bytes(28)


class Flood:
    def __init__(self, port: int, run: str, half_open: int, rate: int):
        self.port, self.half_open, self.rate = port, half_open, rate
        self.words = [b"", b"L", hello(run)]
        self.held: dict[int, socket.socket] = {}
        self.poll = select.epoll()
        self.opened = self.failed = self.hung_up = self.most_held = 0
        self.random = random.Random(1)

    def open_one(self) -> None:
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        # Sixteen blocks of addresses, that of the members among them.
        s.bind((f"127.0.{self.random.randrange(16)}.{self.random.randrange(2, 255)}", 0))
        s.connect_ex(("127.0.0.1", self.port))
        self.opened += 1
        self.held[s.fileno()] = s
        self.poll.register(s.fileno(), select.EPOLLOUT | select.EPOLLRDHUP)

    def look(self, timeout: float) -> None:
        for fd, what in self.poll.poll(timeout, 1024):
            s = self.held[fd]
            if what & (select.EPOLLRDHUP | select.EPOLLERR | select.EPOLLHUP):
                self.hung_up += 1
                self.drop(fd)
                continue
            self.poll.modify(fd, select.EPOLLRDHUP)
            try:
                if word := self.words[fd % 3]:
                    s.send(word)
            except OSError:
                self.failed += 1
                self.drop(fd)
        self.most_held = max(self.most_held, len(self.held))

    def drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.held.pop(fd).close()

    def last(self, ending: Any) -> dict[str, float]:
        begun = time.monotonic()
        while self.opened < self.half_open and not ending.is_set():
            for _ in range(50):
                self.open_one()
            self.look(0)
        burst = time.monotonic() - begun
        while not ending.is_set():
            due = self.half_open + int(self.rate * (time.monotonic() - begun - burst))
            while self.opened < due:
                if len(self.held) >= self.half_open:
                    self.drop(next(iter(self.held)))
                self.open_one()
            self.look(0.002)
        seconds = time.monotonic() - begun
        counts = {"opened": self.opened, "failed": self.failed, "hung_up": self.hung_up, "most_held": self.most_held}
        return {"burst": burst, "seconds": seconds, **counts}


def flood(given: argparse.Namespace, port: int, run: str, ending: Any, told: Any) -> None:
    """In a process of its own: what it costs is not our threads' time."""
    needed = given.half_open + 500
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, now), most))
    told.put(Flood(port, run, given.half_open, given.rate).last(ending))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--half-open", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--open", action="store_true")
    given = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < given.half_open + 500:
        raise SystemExit(f"bench: at most {most} descriptors are allowed here (ulimit -Hn): give a smaller --half-open")
    daemons: list[Daemon] = []
    with tempfile.TemporaryDirectory(prefix="longhaul-bench-") as name:
        try:
            return measure(pathlib.Path(name), given, daemons)
        finally:
            for d in daemons:
                d.end()


def measure(folder: pathlib.Path, given: argparse.Namespace, daemons: list[Daemon]) -> int:
    config = folder / "run.toml"
    config.write_text(RUN.format(peers=given.peers, admission="open" if given.open else "invite"))
    founder = Daemon(folder, "founder", "run", config)
    daemons.append(founder)
    ready = founder.ready()
    daemons += [Daemon(folder, f"peer-{i}", "join", ready["ticket"]) for i in range(1, given.peers)]
    for d in daemons:
        d.ready()
    while not founder.rounds() or founder.rounds()[-1][1] < 3:
        time.sleep(0.1)

    watch = Watch(founder)
    time.sleep(given.seconds)
    calm = watch.end()

    ending, told = multiprocessing.Event(), multiprocessing.Queue()
    port = int(ready["listen"].rpartition(":")[2])
    strangers = multiprocessing.Process(target=flood, args=(given, port, ready["run"], ending, told), daemon=True)
    watch = Watch(founder)
    strangers.start()
    time.sleep(given.seconds)
    stormy = watch.end()
    begun = time.monotonic()
    late = Daemon(folder, "late", "join", ready["ticket"])
    daemons.append(late)
    late.ready()
    joining = time.monotonic() - begun
    ending.set()
    came = told.get(timeout=30)
    strangers.join()

    turned_away = watch.last["strangers"]["turned_away"]
    kind = "open run" if given.open else "run by invitation"
    print(f"{given.peers} daemons on loopback, {kind}; {came['opened']} strangers from 16 blocks of addresses")
    print(f"connected within {came['seconds']:.0f} s, the first {given.half_open} within {came['burst']:.1f} s.")
    print(f"At most {came['most_held']} were open at their end; {came['hung_up']} were hung up on,")
    print(f"{turned_away} of them to make room. A daemon that joined meanwhile was admitted after {joining:.2f} s.\n")
    print("| the founder's | before | meanwhile | more | goal |\n|---|---|---|---|---|")

    def row(what: str, key: str, scale: float, unit: str, goal: str, share: bool = False) -> None:
        a, b = calm[key] * scale, stormy[key] * scale
        more = f"{(b / a - 1) * 100:+.1f} %" if share else f"{b - a:+.1f} {unit}"
        print(f"| {what} | {a:.2f} {unit} | {b:.2f} {unit} | {more} | {goal} |")

    row(f"round, mean of {calm['rounds']} and {stormy['rounds']}", "round", 1, "s", "+10 %", share=True)
    row("memory, the most", "memory", 1, "MiB", "+64 MiB")
    row("request to the control socket, p99", "request", 1e3, "ms", "+50 ms")
    row("round trip of a link, p99", "round_trip", 1e3, "ms", "+50 ms")
    row("processor, of a core", "cpu", 100, "%", "–")
    return 0


if __name__ == "__main__":
    sys.exit(main())
