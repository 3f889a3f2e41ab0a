"""Reading events: torn and broken lines, files that appear or are replaced, and what the view makes of it all."""

import json

import pytest
from longhaul import events, table, units


def line(node: str, t: float, event: str, **fields) -> str:
    return json.dumps({"v": 1, "t": t, "node": node, "event": event, **fields}) + "\n"


def committed(node: str, t: float, round_: int, **fields) -> str:
    standard = {"generation": 0, "attempt": 0, "members": 3, "merged": 3, "root": f"r{round_}", "wire_sent": 100}
    return line(node, t, "round_committed", **{**standard, "round": round_, **fields})


def test_torn_line_waits_for_its_end(tmp_path):
    path = tmp_path / "events.jsonl"
    text = line("a", 1.0, "inner", loss=2.5)
    path.write_text(text + text[:11])
    file = events.EventFile(path)
    assert [e["loss"] for e in file.poll()] == [2.5]
    assert file.poll() == []
    with path.open("a") as more:
        more.write(text[11:])
    assert [e["loss"] for e in file.poll()] == [2.5]
    assert file.broken == 0


BROKEN = ["{]", "3", "[]", '{"event":"x"}', '{"event":3,"t":1}', '{"event":"x","t":true}', "\xff"]


@pytest.mark.parametrize("bad", BROKEN)
def test_broken_line_is_skipped_and_counted(tmp_path, bad):
    path = tmp_path / "events.jsonl"
    path.write_bytes(bad.encode("latin-1") + b"\n" + line("a", 1.0, "left").encode())
    file = events.EventFile(path)
    assert [e["event"] for e in file.poll()] == ["left"]
    assert file.broken == 1


def test_replaced_file_is_read_again(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(line("a", 1.0, "started") + line("a", 2.0, "left"))
    file = events.EventFile(path)
    assert len(file.poll()) == 2
    path.write_text(line("a", 3.0, "started"))
    assert [e["t"] for e in file.poll()] == [3.0]


def test_full_file_that_stepped_back_is_read_to_its_end_and_first(tmp_path):
    path, older = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    path.write_text(line("a", 1.0, "started"))
    file = events.EventFile(path)
    assert [e["t"] for e in file.poll()] == [1.0]
    with path.open("a") as more:
        more.write(line("a", 2.0, "inner"))
    path.rename(older)
    path.write_text(line("a", 3.0, "left"))
    assert [e["t"] for e in file.poll()] == [2.0, 3.0]
    assert file.poll() == []
    assert [e["t"] for e in events.EventFile(path).poll()] == [1.0, 2.0, 3.0]
    assert [e["t"] for e in events.RunDirectory(tmp_path).poll()] == [1.0, 2.0, 3.0]


def test_directory_finds_late_files_and_orders_by_time(tmp_path):
    directory = events.RunDirectory(tmp_path)
    assert directory.poll() == [] and directory.empty
    for node, t in (("peer-1", 2.0), ("peer-0", 1.0)):
        (tmp_path / node).mkdir()
        (tmp_path / node / "events.jsonl").write_text(line("same-host", t, "started"))
    assert [(e["node"], e["t"]) for e in directory.poll()] == [("peer-0", 1.0), ("peer-1", 2.0)]
    assert directory.poll() == []


def view_of(*lines: str) -> events.RunView:
    view = events.RunView()
    view.feed(json.loads(text) for text in lines)
    return view


def test_view_sums_bytes_and_follows_rounds():
    view = view_of(
        line("a", 0.0, "started", run_name="demo", rounds_total=9),
        committed("a", 1.0, 1, wire_sent=100, wire_received=10, raw_bytes=6000, loss=3.0),
        committed("b", 1.1, 1, wire_sent=100, wire_received=20, raw_bytes=6000, loss=2.0),
        committed("a", 2.0, 2, wire_sent=100, wire_received=10, raw_bytes=6000, loss=1.0),
        line("a", 2.5, "eval", round=2, loss=1.25),
    )
    assert (view.round, view.rounds_total, view.sent, view.received) == (2, 9, 300, 40)
    assert view.ratio == 60
    assert view.loss == 1.25
    assert view.train_loss == 1.5
    assert [p.sent for p in view.train] == [100, 200, 300]
    assert view.seconds == 2.5
    assert view.diverged is None


def test_own_loss_counts_before_the_mean_of_all():
    view = view_of(line("a", 1.0, "inner", round=1, loss=2.0), committed("a", 1.5, 1, loss=9.0))
    assert view.nodes["a"].loss == 2.0 and [p.loss for p in view.train] == [2.0]


def test_view_notices_diverged_replicas():
    equal = [committed("a", 1.0, 1), committed("b", 1.1, 1), committed("a", 2.0, 2)]
    view = view_of(*equal, committed("b", 2.1, 2, root="x"))
    assert view.diverged == "b and a differ after round 2"
    assert [h.kind for h in view.happenings] == ["diverged"]


def test_who_catches_up_holds_what_it_fetched():
    """The last thing that a node did may be to fetch the state: then that is its root, and it is compared, too."""
    fetched = {"generation": 0, "round": 3}
    view = view_of(committed("a", 1.0, 3), committed("b", 0.5, 1), line("b", 1.5, "catch_up", root="x", **fetched))
    assert (view.nodes["b"].round, view.nodes["b"].root) == (3, "x")
    assert view.diverged == "b and a differ after round 3"


def test_other_generations_are_other_runs():
    view = view_of(committed("a", 1.0, 1), committed("b", 1.1, 1, generation=1, root="x"))
    assert view.diverged is None


def test_view_tells_what_happened_to_whom():
    view = view_of(
        line("launcher", 0.0, "spawned", peer="peer-0"),
        committed("peer-0", 1.0, 1),
        line("launcher", 1.5, "killed", peer="peer-2", round=2),
        line("launcher", 1.6, "exited", peer="peer-2", code=137),
        line("peer-0", 2.0, "attempt_failed", round=2, reason="peer-2 is down"),
        line("peer-0", 2.4, "peer_down", name="peer-2", reason="end of file"),
        line("peer-0", 2.4, "left", number=2, reason="it is down"),
        line("peer-0", 2.5, "joined", name="peer-3", number=3),
        line("launcher", 3.0, "exited", peer="peer-1", code=78, words="bad unit"),
    )
    assert [h.kind for h in view.happenings] == ["kill", "attempt", "join", "exit"]
    assert view.nodes["peer-2"].state == "killed"
    assert view.nodes["peer-1"].state == "exit 78"
    assert "bad unit" in view.happenings[-1].text
    assert view.happenings[2].node == "peer-3"
    assert view.alive == 1


def test_view_tells_who_is_cut_off_and_who_sits_out():
    lie = {"name": "c", "peer": "aa", "reason": "its root is not that of its chunks"}
    view = view_of(line("a", 1.0, "cut_off", **lie), line("a", 2.0, "sits_out", peer="bb", name="d", round=7))
    assert [(h.kind, h.node) for h in view.happenings] == [("cut_off", "c"), ("sits_out", "d")]
    assert "its root is not that of its chunks" in view.happenings[0].text


def test_without_a_launcher_a_death_is_told_once():
    down = {"name": "c", "reason": "end of file"}
    view = view_of(
        line("a", 1.0, "peer_down", **down),
        line("b", 1.1, "peer_down", **down),
        line("a", 2.0, "peer_up", name="c"),
        line("a", 3.0, "peer_down", **down),
    )
    assert [h.text for h in view.happenings] == ["a lost c: end of file"] * 2


def test_who_takes_over_is_told_and_who_coordinates_from_the_start_is_not():
    view = view_of(
        line("a", 0.5, "coordinator", self=True),
        committed("a", 1.0, 1),
        line("c", 2.0, "coordinator", peer="b-key", self=False),
        line("b", 2.0, "coordinator", self=True),
        line("b", 2.5, "coordinator", self=True),
    )
    assert [h.text for h in view.happenings] == ["b coordinates now: still training"]


def test_a_silent_peer_is_told():
    view = view_of(line("a", 1.0, "peer_silent", name="c", number=3))
    assert [h.text for h in view.happenings] == ["a hears nothing from c: the round goes on without it"]


def test_a_finished_node_is_done_and_one_that_leaves_says_why():
    view = view_of(line("a", 1.0, "left", reason="the run is over"), line("b", 1.0, "left", reason="asked to stop"))
    assert (view.nodes["a"].state, view.nodes["b"].state) == ("done", "left")
    assert [h.text for h in view.happenings] == ["b left: asked to stop"]


def test_a_loss_that_everybody_reports_counts_once():
    view = view_of(line("a", 1.0, "eval", round=1, loss=2.0), line("b", 1.2, "eval", round=1, loss=2.0))
    assert [(p.node, p.loss) for p in view.evals] == [("a", 2.0)]


def test_null_loss_is_no_loss():
    view = view_of(committed("a", 1.0, 1, loss=None), line("a", 1.0, "eval", loss=None, round=1))
    assert view.train == [] and view.evals == [] and view.loss is None


SIZES = [(0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (1020, "1.02 kB"), (33.6e6, "33.6 MB"), (4e15, "4000 TB")]
SPANS = [(8.4, "8 s"), (59.6, "1 min 00 s"), (133, "2 min 13 s"), (3900, "1 h 05 min")]


@pytest.mark.parametrize(("count", "text"), SIZES)
def test_size(count, text):
    assert units.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), SPANS)
def test_span(seconds, text):
    assert units.span(seconds) == text


def test_sparkline():
    assert table.sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert len(table.sparkline([float(i) for i in range(100)], width=10)) == 10
    assert table.sparkline([1.0, 1.0]) == "▁▁"
    assert table.sparkline([]) == ""


def test_table_shows_every_peer_and_what_happened():
    rich_console = pytest.importorskip("rich.console")
    view = view_of(
        line("launcher", 0.0, "spawned", peer="peer-10"),
        committed("peer-2", 1.0, 1, wire_sent=2000, raw_bytes=120000, loss=2.5),
        line("launcher", 1.5, "killed", peer="peer-10"),
    )
    console = rich_console.Console(width=140, record=True, file=open("/dev/null", "w"))
    console.print(table.draw(view))
    text = console.export_text()
    assert text.index("peer-2") < text.index("peer-10")
    assert "60×" in text and "2.500" in text and "peer-10 was killed (signal 9)" in text


def test_natural_order():
    assert sorted(["peer-10", "peer-2", "peer-0"], key=table.natural) == ["peer-0", "peer-2", "peer-10"]
