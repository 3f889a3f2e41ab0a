#!/usr/bin/env python3
"""Stands in for the daemon where a test is about the launcher alone: same command line, same files, no network.

It writes the events of DESIGN §8 at a pace that the environment sets, and fails on request:
FAKE_ROUNDS, FAKE_ROUND_SECONDS, FAKE_FAIL="peer-1@3=78:words", FAKE_DEAF=1 (ignores SIGTERM), FAKE_WAITS="peer-0"
(begins no round). `lab --hold` holds three machines, into which one goes by an environment variable, FAKE_MACHINE, or
none (FAKE_NO_LAB=1).
"""

import hashlib
import json
import math
import os
import pathlib
import signal
import sys
import threading
import time


TICKET = "longhaul://127.0.0.1:1/fake#AAAA"


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def hold() -> int:
    """A lab's network until stdin ends."""
    if os.environ.get("FAKE_NO_LAB"):
        print("longhaul: the lab may not make namespaces here", file=sys.stderr)
        return 78
    enter = {name: ["env", f"FAKE_MACHINE={name}"] for name in ("attic", "barn", "cave")}
    print(json.dumps({"peers": {n: {"address": f"10.0.0.{len(n)}", "enter": e} for n, e in enter.items()}}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"kept_up": not os.environ.get("FAKE_BUSY")}), flush=True)
    pathlib.Path(sys.argv[3]).unlink()  # shows that it ended in its own time
    return 0


def main() -> int:
    if sys.argv[1] == "lab":
        return hold()
    directory = pathlib.Path(option("--state-dir"))
    name = option("--name")
    rounds = int(os.environ.get("FAKE_ROUNDS", "20"))
    pace = float(os.environ.get("FAKE_ROUND_SECONDS", "0.05"))
    failure = os.environ.get("FAKE_FAIL", "")
    if sys.argv[1] == "join" and (sys.argv[2] != "-" or sys.stdin.readline() != f"{TICKET}\n"):
        print("no ticket on stdin", file=sys.stderr)
        return 77
    if sys.argv[1] == "run" and not pathlib.Path(sys.argv[2]).exists():
        print(f"{sys.argv[2]} does not exist; name a run file", file=sys.stderr)
        return 78
    leaving = threading.Event()
    if not os.environ.get("FAKE_DEAF"):
        signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    lifeline = int(option("--die-with-fd"))
    # Not a daemon thread of its own making: an end of file on the lifeline is the launcher's death.
    threading.Thread(target=lambda: (os.read(lifeline, 1), os._exit(0)), daemon=True).start()

    with (directory / "events.jsonl").open("a") as file:

        def emit(event: str, **fields: object) -> None:
            line = {"v": 1, "t": time.time(), "node": name, "event": event, **fields}
            file.write(json.dumps(line) + "\n")
            file.flush()

        machine = {"machine": os.environ.get("FAKE_MACHINE"), "listens": option("--listen")}
        emit("started", run="00", name=name, parameters=1000, rounds=rounds, H=30, **machine)
        ready = {"ready": True, "ticket": TICKET, "listen": "127.0.0.1:1", "key": "k"}
        print(json.dumps(ready), flush=True)
        if sys.argv[1] == "join":
            emit("joined", name=name, number=int(name.removeprefix("peer-")))
        if os.environ.get("FAKE_WAITS") == name:
            leaving.wait()
            rounds = 0
        for round_ in range(1, rounds + 1):
            if leaving.wait(pace):
                emit("left", reason="asked to stop")
                return 0
            if failure.startswith(f"{name}@{round_}="):
                code, words = failure.split("=", 1)[1].split(":", 1)
                print(words, file=sys.stderr, flush=True)
                return int(code)
            loss = 1.5 + 2 * math.exp(-round_ / 10)
            root = hashlib.sha256(str(round_).encode()).hexdigest()
            emit("round_committed", generation=0, round=round_, attempt=0, members=4, merged=4, root=root,
                 wire_sent=2000, wire_received=6000, raw_bytes=120000, loss=loss + 0.01)  # fmt: skip
            emit("eval", round=round_, loss=loss)
        emit("left", reason="the run is over")
    return 0


if __name__ == "__main__":
    sys.exit(main())
