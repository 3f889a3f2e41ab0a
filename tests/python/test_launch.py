"""The launcher with a stand-in daemon: starting, faults, exit codes, and that nothing outlives it."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pace
import pytest
from longhaul import launch
from longhaul.events import RunView
from nodes import PATIENCE
from pace import wait_until

FAKE = pathlib.Path(__file__).with_name("fake_daemon.py")
ROOT = pathlib.Path(__file__).resolve().parents[2]


# Twenty rounds of a second in all are over before a launcher on a busy machine looks again: faults need more.
SLOWLY = {"FAKE_ROUND_SECONDS": "0.25"}


def command(tmp_path: pathlib.Path, *more: str) -> list[str]:
    config = tmp_path / "run.toml"
    config.touch()
    where = ["--dir", str(tmp_path / "run"), "--binary", str(FAKE)]
    return [sys.executable, "-m", "longhaul", "launch", str(config), *where, *more]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), **more}


def run(tmp_path: pathlib.Path, *more: str, **env: str) -> subprocess.CompletedProcess:
    return pace.run(command(tmp_path, *more), PATIENCE, env=environment(**env))


def pids(tmp_path: pathlib.Path) -> list[int]:
    """Processes whose command line names this test's run directory, the launcher aside."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "--state-dir" in words and any(w.startswith(str(tmp_path)) for w in words):
                found.append(int(entry.name))
    return found


def test_four_peers_to_the_end(tmp_path):
    done = run(tmp_path, "--peers", "4", "--json", "--plain")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ok"] and result["rounds"] == 20 and len(result["peers"]) == 4
    assert {p["exit"] for p in result["peers"].values()} == {0}
    assert len({p["root"] for p in result["peers"].values()}) == 1
    assert result["raw_ratio"] == 60
    assert "round 20/20" in done.stderr.splitlines()[-1]


def test_kill_late_and_restart(tmp_path):
    faults = ["--kill", "peer-1@round:3", "--join-late", "peer-2@round:4", "--restart", "peer-1@round:6"]
    done = run(tmp_path, "--peers", "3", "--plain", *faults, **SLOWLY)
    assert done.returncode == 0, done.stderr
    events = [json.loads(s) for s in (tmp_path / "run" / "launcher.jsonl").read_text().splitlines()]
    story = {p: [e["event"] for e in events if e["peer"] == p] for p in ("peer-0", "peer-1", "peer-2")}
    assert story["peer-0"] == ["spawned", "exited"]
    assert story["peer-1"] == ["spawned", "killed", "spawned", "exited"]
    assert story["peer-2"] == ["spawned", "exited"]
    late = next(e for e in events if e["peer"] == "peer-2")
    founded = (tmp_path / "run" / "peer-0" / "events.jsonl").read_text().splitlines()
    rounds_before = [e for e in map(json.loads, founded) if e["event"] == "round_committed" and e["t"] < late["t"]]
    assert len(rounds_before) >= 4
    assert "peer-1 was killed (signal 9) in round" in done.stdout
    assert "3 peers trained" in done.stdout.splitlines()[-2] + done.stdout.splitlines()[-1]
    assert "peer-1 was killed and started again" in done.stdout
    assert "peer-2 joined late" in done.stdout


def in_a_lab(tmp_path: pathlib.Path, *more: str, **env: str) -> subprocess.CompletedProcess:
    (tmp_path / "links.toml").touch()
    return run(tmp_path, "--lab", str(tmp_path / "links.toml"), "--plain", *more, **env)


def test_each_daemon_of_a_lab_has_a_machine_of_its_own(tmp_path):
    faults = ["--kill", "peer-1@round:3", "--restart", "peer-1@round:6"]
    done = in_a_lab(tmp_path, "--peers", "2", *faults, **SLOWLY)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "links.toml").exists(), "the network goes when its daemons have gone"
    started = {}
    for peer in ("peer-0", "peer-1"):
        lines = (tmp_path / "run" / peer / "events.jsonl").read_text().splitlines()
        lives = [e for e in map(json.loads, lines) if e["event"] == "started"]
        started[peer] = [(e["machine"], e["listens"]) for e in lives]
    assert started["peer-0"] == [("attic", "10.0.0.5:0")]
    # It comes back on the same machine; where it listened, if it had said so before it was killed.
    assert set(started["peer-1"]) <= {("barn", "10.0.0.4:0"), ("barn", "127.0.0.1:1")} and started["peer-1"]
    assert "too busy" not in done.stderr


def test_a_lab_that_is_not_to_be_had_says_why(tmp_path):
    done = in_a_lab(tmp_path, "--peers", "2", FAKE_NO_LAB="1")
    assert done.returncode == 78 and "the lab may not make namespaces here" in done.stderr
    done = in_a_lab(tmp_path, "--peers", "4")
    assert done.returncode == 2 and "has 3 peers, and 4 were asked for" in done.stderr


def test_links_that_were_slower_than_said_are_told(tmp_path):
    done = in_a_lab(tmp_path, "--peers", "2", FAKE_BUSY="1")
    assert done.returncode == 0 and "too busy to keep to the emulated links' times" in done.stderr


def test_killed_peer_stays_dead_and_does_not_fail_the_run(tmp_path):
    done = run(tmp_path, "--peers", "2", "--json", "--kill", "peer-1@round:2", **SLOWLY)
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["peers"]["peer-1"]["killed"] and result["peers"]["peer-1"]["exit"] == 128 + signal.SIGKILL
    assert result["peers"]["peer-1"]["applied"] < 20 and result["peers"]["peer-0"]["applied"] == 20


def test_last_words_and_exit_code_of_a_daemon_that_fails(tmp_path):
    done = run(tmp_path, "--peers", "2", "--plain", FAKE_FAIL="peer-1@3=77:the ticket was revoked")
    assert done.returncode == 77
    assert "peer-1 ended with 77: the ticket was revoked" in done.stderr


def test_founder_that_never_gets_ready(tmp_path):
    arguments = command(tmp_path, "--plain")
    (tmp_path / "run.toml").unlink()
    done = pace.run(arguments, PATIENCE, env=environment())
    assert done.returncode == 78
    assert "run.toml does not exist" in done.stderr


def test_founder_that_fails_ends_the_run(tmp_path):
    endless = {"FAKE_ROUNDS": "999999"}
    done = run(tmp_path, "--peers", "2", "--plain", FAKE_FAIL="peer-0@3=1:out of luck", **endless)
    assert done.returncode == 1 and "out of luck" in done.stderr
    assert pids(tmp_path) == []


def test_interrupt_leaves_cleanly(tmp_path):
    process = subprocess.Popen(command(tmp_path, "--peers", "2", "--plain"), env=environment(FAKE_ROUNDS="9999"))
    events = [tmp_path / "run" / f"peer-{i}" / "events.jsonl" for i in range(2)]
    assert wait_until(lambda: all(e.exists() and "round_committed" in e.read_text() for e in events), PATIENCE)
    process.send_signal(signal.SIGINT)
    assert pace.exit_code(process, PATIENCE) == 0
    assert pids(tmp_path) == []
    assert '"event": "left"' in (tmp_path / "run" / "peer-1" / "events.jsonl").read_text()


def test_children_die_with_a_killed_launcher(tmp_path):
    """kill -9 of the launcher: no handler runs, and the daemons go all the same, also one that ignores SIGTERM."""
    process = subprocess.Popen(
        command(tmp_path, "--peers", "3", "--plain"), env=environment(FAKE_ROUNDS="9999", FAKE_DEAF="1")
    )
    assert wait_until(lambda: len(pids(tmp_path)) == 3, PATIENCE)
    process.kill()
    process.wait()
    assert wait_until(lambda: pids(tmp_path) == [], PATIENCE)


def test_limit_on_time(tmp_path):
    done = run(tmp_path, "--peers", "2", "--plain", "--max-seconds", "2", FAKE_ROUNDS="9999")
    assert done.returncode == 0 and pids(tmp_path) == []


@pytest.mark.parametrize("text", ["peer-1", "peer-1@40", "peer-1@round:x", "peer-1@round:1.5", "node@round:1", ""])
def test_bad_fault_is_a_usage_error(tmp_path, text):
    done = run(tmp_path, "--kill", text)
    assert done.returncode == 2 and "write for example peer-2@round:40" in done.stderr


@pytest.mark.parametrize("more", [["--kill", "peer-7@round:1"], ["--peers", "0"], ["--join-late", "peer-0@round:3"]])
def test_impossible_requests_are_usage_errors(tmp_path, more):
    assert run(tmp_path, *more).returncode == 2


def test_a_run_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path, "--dir", str(tmp_path / "file"))
    assert done.returncode == 78 and "Traceback" not in done.stderr
    assert f"{tmp_path}/file cannot be the run's folder" in done.stderr and "--dir" in done.stderr


def test_missing_binary_says_how_to_build(tmp_path):
    done = run(tmp_path, "--binary", str(tmp_path / "nothing"))
    assert done.returncode == 69 and "cmake --build" in done.stderr


def test_the_ticket_is_in_no_command_line_and_no_log(tmp_path):
    """Every user of the machine can read the command lines of all processes."""
    process = subprocess.Popen(command(tmp_path, "--peers", "3", "--plain"), env=environment(FAKE_ROUNDS="9999"))
    try:
        events = [tmp_path / "run" / f"peer-{i}" / "events.jsonl" for i in range(3)]
        assert wait_until(lambda: all(e.exists() and "round_committed" in e.read_text() for e in events), PATIENCE)
        running = pids(tmp_path)
        assert len(running) == 3
        for pid in running:
            assert b"#AAAA" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            assert b"#AAAA" not in pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        process.send_signal(signal.SIGINT)
        assert pace.exit_code(process, PATIENCE) == 0
    assert "#AAAA" not in (tmp_path / "run" / "launcher.jsonl").read_text()
    assert (tmp_path / "run" / "peer-0").stat().st_mode & 0o077 == 0


def test_the_ticket_of_a_logged_command_line_is_cut():
    """Somebody's own arguments may hold one."""
    assert launch.without_secret(["join", "longhaul://a:1/b#SECRET"]) == "join 'longhaul://a:1/b#…'"


def least(tmp_path: pathlib.Path, toml: str = "", **more: object) -> int | None:
    config = tmp_path / "min.toml"
    config.write_text(toml)
    return launch.wanted_peers(launch.Options(config, 4, tmp_path / "run", FAKE, **more))


def test_rounds_wait_for_all_that_do_not_join_late(tmp_path, monkeypatch):
    late, dead = launch.parse_trigger("peer-3@percent:15"), launch.parse_trigger("peer-2@seconds:1")
    assert least(tmp_path) == 4
    assert least(tmp_path, late=[late]) == 3
    assert least(tmp_path, late=[late], kills=[dead, launch.parse_trigger("peer-1@round:5")]) == 2
    assert least(tmp_path, min_peers=2) == 2
    # Whoever said something already is right.
    assert least(tmp_path, "[peers]\nmin = 2\n") is None
    assert least(tmp_path, founder_args=["--min-peers", "1"]) is None
    assert least(tmp_path, founder_args=["--set", "peers.min=1"]) is None
    for toml in ["not [ toml", "peers = 3"]:
        assert least(tmp_path, toml) == 4, "the daemon says what is wrong with the file"
    monkeypatch.setenv("LONGHAUL_PEERS_MIN", "2")
    assert least(tmp_path) is None


def test_a_second_launch_keeps_the_least_number_of_the_first(tmp_path):
    assert run(tmp_path, "--peers", "3").returncode == 0
    first = json.loads((tmp_path / "run" / "launcher.jsonl").read_text().splitlines()[0])
    assert " --min-peers 3" in first["command"]
    manifest = tmp_path / "run" / "peer-0" / "run" / "manifest"
    manifest.parent.mkdir()
    manifest.touch()
    assert least(tmp_path) == 3, "the run's settings never change"


def test_a_peer_that_fails_before_the_first_round_ends_the_launch(tmp_path):
    """The first round would wait for it for ever."""
    done = run(tmp_path, "--peers", "2", "--plain", FAKE_FAIL="peer-1@1=78:no such data", FAKE_WAITS="peer-0")
    assert done.returncode == 78
    assert "peer-1 ended with 78: no such data" in done.stderr


def test_trigger():
    by_round, by_time = launch.parse_trigger("peer-2@round:40"), launch.parse_trigger("peer-12@seconds:1.5")
    by_share = launch.parse_trigger("peer-0@percent:25")
    view = RunView()
    view.round = 39
    assert not by_round.due(view, 999) and by_time.due(view, 1.5) and not by_time.due(view, 1.4)
    assert not by_share.due(view, 999), "nobody has said how many rounds there are"
    view.round, view.rounds_total = 40, 161
    assert by_round.due(view, 0) and not by_share.due(view, 0)
    view.rounds_total = 160
    assert by_share.due(view, 0)
    by_share.done = True
    assert not by_share.due(view, 0)
