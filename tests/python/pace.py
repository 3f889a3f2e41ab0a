"""Deadlines of tests in seconds of an idle machine: on a busy one they stretch by what a second of work takes there."""

from __future__ import annotations

import subprocess
import time

# However slow the machine, a test ends: what hangs is found, five times later at most.
MOST = 5.0


def pace() -> float:
    """How many seconds a second of work takes here and now: 1 on an idle core."""
    wall, work = time.monotonic(), time.process_time()
    while time.process_time() - work < 0.25:
        pass
    return max(1.0, (time.monotonic() - wall) / 0.25)


class Deadline:
    """Passed after `seconds`, or after as many times more as the pace says when they are over."""

    def __init__(self, seconds: float):
        self.seconds = self.limit = seconds
        self.started = time.monotonic()

    def passed(self) -> bool:
        elapsed = time.monotonic() - self.started
        if elapsed < self.limit:
            return False
        self.limit = max(self.limit, self.seconds * min(MOST, pace()))
        return elapsed >= self.limit


def wait_until(condition, seconds: float):
    """What `condition` returned once it was true, or its last answer when the deadline passed."""
    deadline = Deadline(seconds)
    while not (value := condition()) and not deadline.passed():
        time.sleep(0.05)
    return value or condition()


def exit_code(process: subprocess.Popen, seconds: float) -> int:
    deadline = Deadline(seconds)
    while True:
        try:
            return process.wait(1)
        except subprocess.TimeoutExpired:
            if deadline.passed():
                raise


def run(command: list, seconds: float, input: str | None = None, **more) -> subprocess.CompletedProcess:
    """subprocess.run with its output as text and a deadline of the machine's pace."""
    deadline = Deadline(seconds)
    if input is not None:
        more["stdin"] = subprocess.PIPE
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more) as process:
        while True:
            try:
                out, err = process.communicate(input, timeout=5)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                input = None  # it is on its way
                if deadline.passed():
                    process.kill()
                    raise
