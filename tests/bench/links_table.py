"""The rows of `scripts/bench links`, kept between runs, and the page that is written from them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import re
import statistics
from collections.abc import Callable

from lab import ROOT, Lab

KEPT = ROOT / "docs" / "results" / "links.json"
REPORT = ROOT / "docs" / "BENCHMARKS.md"
# A row whose emulator did not keep up is measured again, so often in all.
ATTEMPTS = 4


@dataclasses.dataclass
class Measured:
    """`others`: what others took, in words."""

    seconds: list[float]
    others: str = ""
    note: str = ""
    goal: float = 0  # what only the measurement tells


class Table:
    """Rows by name, kept between runs."""

    def __init__(self, facts: str, keep: bool, only: str) -> None:
        self.facts = facts
        self.keep = keep
        self.only = only
        self.rows: dict[str, dict] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
        self.bad = 0

    def row(
        self, work: str, floor: float, goal: float, scenario: str, cc: str, measure: Callable[[Lab], Measured]
    ) -> None:
        """Measures on machines of its own. `measure` asks `kept_up` before its own part, so that others do not count.

        `floor` and `goal` in seconds, the latter 0 where none is set."""
        if not re.search(self.only, work):
            return
        for attempt in range(ATTEMPTS):
            with Lab(scenario) as lab:
                lab.prefer(cc)
                found = measure(lab)
                kept_up = lab.kept_up()
            if kept_up:
                break
            print(f"{work}: the emulator did not keep up, attempt {attempt + 1} of {ATTEMPTS}", flush=True)
        else:
            self.bad += 1
            found.note = "; ".join(filter(None, [found.note, "the emulator did not keep up"]))
        if kept_up and attempt > 0:
            found.note = "; ".join(filter(None, [found.note, f"attempt {attempt + 1}: it did not keep up before"]))
        self.rows[work] = {
            "floor": floor,
            "seconds": found.seconds,
            "others": found.others,
            "note": found.note,
            "goal": found.goal or goal,
            "measured": self.facts,
        }
        print(self.line(work), flush=True)
        if self.keep:  # at once: a later row may fail, and minutes of measuring would be lost
            self.save()

    def line(self, work: str) -> str:
        r = self.rows[work]
        median = statistics.median(r["seconds"])
        spread = f"{min(r['seconds']):.2f}–{max(r['seconds']):.2f}, n = {len(r['seconds'])}"
        goal = f"{r['goal']:.2f} s" + ("" if median <= r["goal"] else ", **missed**") if r["goal"] else ""
        if goal and "did not keep up" in r["note"]:
            goal += " (this machine cannot tell)"
        floor = [f"{r['floor']:.2f} s", f"{median / r['floor']:.2f}"] if r["floor"] else ["", ""]
        cells = [work, floor[0], f"**{median:.2f} s** ({spread})", floor[1], goal]
        return "| " + " | ".join([*cells, r["others"], r["note"]]) + " |"

    def text(self) -> str:
        head = "| work | floor | longhaul, median (least–most) | × floor | goal | others | |\n"
        return head + "|---" * 7 + "|\n" + "\n".join(map(self.line, self.rows)) + "\n"

    def save(self) -> None:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(self.rows, indent=1, ensure_ascii=False) + "\n")
        runs = sorted({r["measured"] for r in self.rows.values()})
        REPORT.write_text(f"""# Links and exchanges, measured

Written by `scripts/bench links --save` from `docs/results/links.json`; do not edit. {processor()},
{os.cpu_count()} cores for all machines and the emulator together, kernel {platform.release()}.
Measured (date, commit): {"; ".join(runs)}.

Real kernels' TCP over emulated links (`longhaul lab`: MTU 1500, drop-tail queue of one bandwidth-delay product),
encryption on, bbr unless a row says cubic, until the receiver has verified the last byte. floor = bytes / (rate less
TCP/IP headers) + one RTT for the confirmed receipt, half an RTT for the all-reduce of two. What stands under others was
measured in the same run: medians of as many runs as ours has, unless it says once. A row of ours is measured again
when the emulator did not keep up with the asked rates; of others it is said. Rows with cubic are made by
`scripts/bench links --cubic --save`.

{self.text()}""")


def processor() -> str:
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
