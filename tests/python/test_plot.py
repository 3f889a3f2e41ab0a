"""The figure is drawn from events alone, says what it shows, and fails with a sentence where there is nothing."""

import json

import pytest
from longhaul import cli, plot

pytest.importorskip("matplotlib")


@pytest.fixture
def run_directory(tmp_path):
    directory = tmp_path / "run"
    for peer in ("peer-0", "peer-1"):
        (directory / peer).mkdir(parents=True)
        with (directory / peer / "events.jsonl").open("w") as file:
            for i in range(1, 31):
                if peer == "peer-1" and i > 15:
                    break
                base = {"v": 1, "t": 100.0 + i, "node": peer}
                committed = {"event": "round_committed", "round": i, "root": f"r{i}", "loss": 3 - i / 20}
                file.write(json.dumps({**base, **committed, "wire_sent": 300000, "raw_bytes": 18000000}) + "\n")
                file.write(json.dumps({**base, "event": "eval", "round": i, "loss": 3.1 - i / 20}) + "\n")
    killed = {"v": 1, "t": 115.5, "node": "launcher", "event": "killed", "peer": "peer-1"}
    (directory / "launcher.jsonl").write_text(json.dumps(killed) + "\n")
    return directory


def test_one_run(run_directory):
    png, svg = plot.plot([run_directory])
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and png.stat().st_size > 20000
    text = svg.read_text()
    assert "peer-1 killed" in text and "1.600" in text and "60× less" in text


def test_several_runs_are_labelled_directly(run_directory, tmp_path, capsys):
    assert cli.main(["plot", str(run_directory), str(run_directory), "--out", str(tmp_path / "both.png")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "both.png"), str(tmp_path / "both.svg")]
    assert (tmp_path / "both.svg").read_text().count("run 1.600") >= 2


def test_the_same_events_make_the_same_figure(run_directory, tmp_path):
    first = plot.plot([run_directory], tmp_path / "a")[1].read_bytes()
    assert plot.plot([run_directory], tmp_path / "b")[1].read_bytes() == first


def test_nothing_to_draw(tmp_path, capsys):
    assert cli.main(["plot", str(tmp_path)]) == 2
    assert "has no events.jsonl with a loss" in capsys.readouterr().err


def test_a_figure_that_cannot_be_written(run_directory, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["plot", str(run_directory), "--out", str(tmp_path / "file" / "figure")]) == 2
    assert "file/figure cannot be written" in capsys.readouterr().err


def test_top_shows_a_finished_run_once(run_directory, capsys):
    assert cli.main(["top", str(run_directory), "--plain", "--once"]) == 0
    assert "round 30" in capsys.readouterr().out


def test_top_of_an_empty_directory(tmp_path, capsys):
    assert cli.main(["top", str(tmp_path), "--once"]) == 69


def test_top_gives_the_address_by_stdin(tmp_path, capfd):
    """What stands on a command line can be read by every user of the machine."""
    program = tmp_path / "longhaul"
    program.write_text('#!/bin/sh\nread -r line\necho "$@" "$line"\n')
    program.chmod(0o700)
    ticket = "longhaul://127.0.0.1:1/run#SECRET"
    assert cli.main(["top", ticket, "--once", "--plain", "--binary", str(program)]) == 0
    assert capfd.readouterr().out == f"status - --json {ticket}\n"
