"""The real binary as a daemon: two commands make a run; what is wrong is one sentence; the receiver lives on."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import stat
import struct
import subprocess

import pytest
from nodes import PATIENCE, ROOT, World, listener, port_of, wait_for
from pace import exit_code

WIRE_VERSION = 1


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


def hello(wire_min=WIRE_VERSION, wire_max=WIRE_VERSION, role=1, run=bytes(32), session=bytes(16), connection=0):
    """The 96 bytes of net/PROTOCOL.md §2."""
    head = b"LONGHAUL" + struct.pack("<HHB3xI", wire_min, wire_max, role, connection)
    return (head + run + session).ljust(96, b"\0")


def still_serves(world, node):
    """The daemon runs and answers on both doors."""
    assert node.alive(), node.err.read_text()
    done = world.run("status", "--state-dir", node.folder, "--json")
    assert done.code == 0, done.err
    assert world.run("probe", node.ready()["listen"]).code == 0
    return done.json


# -- two commands make a run -----------------------------------------------------------------------


def test_two_commands_train_one_model(world):
    founder = world.found(min_peers=2, rounds=12)
    ready = founder.ready()
    assert set(ready) >= {"ready", "ticket", "listen", "state_dir", "key", "run", "resumed"}
    assert ready["resumed"] is False and ready["ticket"].startswith("longhaul://127.0.0.1:")
    joiner = world.join("joiner", ready["ticket"])
    assert founder.wait().code == 0, founder.err.read_text()
    assert joiner.wait().code == 0, joiner.err.read_text()
    roots = {n.name: {e["round"]: e["root"] for e in n.events("round_committed")} for n in (founder, joiner)}
    shared = set(roots["founder"]) & set(roots["joiner"])
    assert 12 in shared
    assert all(roots["founder"][r] == roots["joiner"][r] for r in shared)
    models = [next((n.folder / "checkpoints").glob("round-*12/model.safetensors")) for n in (founder, joiner)]
    assert models[0].read_bytes() == models[1].read_bytes()
    for node in (founder, joiner):  # every byte is told in one round's event, but for those after the last commit
        (end,) = node.events("left")
        for count in ("wire_sent", "wire_received"):
            told = [e[count] for e in node.events("round_committed")]
            assert 0 <= end[count] - sum(told) < 2 * max(told), (node.name, count, end[count], told)

    inspected = [world.run("ckpt", "inspect", n.folder, "--json").json for n in (founder, joiner)]
    assert inspected[0]["round"] == 12
    assert inspected[0]["model_hash"] == inspected[1]["model_hash"]
    assert world.run("ckpt", "export", founder.folder, "-o", "model.safetensors").code == 0
    assert (world.folder / "model.safetensors").read_bytes() == models[0].read_bytes()
    again = world.run("ckpt", "export", founder.folder, "-o", "model.safetensors")
    assert again.code == 2 and "model.safetensors exists already" in again.sentence and "-o" in again.sentence


def test_a_state_folder_whose_name_is_no_text(world):
    folder = os.fsdecode(b"not utf-8: \xff")
    line = ["run", world.config(rounds=3), "--listen", "127.0.0.1:0", "--state-dir", folder, "--json-ready"]
    done = world.run(*line)
    assert done.code == 0, done.err
    ready, ended = map(json.loads, done.out.splitlines())
    assert ready["ready"] and ended["complete"]


def test_a_peer_keeps_its_shard_while_others_come_and_go(world):
    founder = world.found()
    ticket = founder.ready()["ticket"]
    first, second = world.join("first", ticket), world.join("second", ticket)
    for node in (first, second):
        node.ready()
    assert first.stop().code == 0
    world.join("third", ticket).ready()
    second.kill()
    for name in ("first", "second"):
        world.join(name, ticket).ready()
    numbers = {n.name: {e["number"] for e in n.events("started")} for n in world.nodes}
    assert all(len(of_one) == 1 for of_one in numbers.values()), numbers
    assert len(set.union(*numbers.values())) == 4, numbers


def test_status_and_peers_here_and_from_afar(world):
    founder = world.found()
    ready = founder.ready()
    founder.wait_for_round(2)
    here = world.run("status", "--state-dir", founder.folder, "--json").json
    afar = world.run("status", ready["ticket"], "--json").json
    for told in (here, afar):
        assert told["run"] == ready["run"] and told["run_name"] == "test-run" and told["name"] == "founder"
        assert (told["alive"], told["merged"]) == (1, 1)
    assert here["ticket"] == ready["ticket"]
    assert "ticket" not in afar, "whoever may look need not be able to invite"
    rows = world.run("peers", ready["ticket"], "--json").json
    assert [r["name"] for r in rows] == ["founder"]
    assert "1 alive" in world.run("status", "--state-dir", founder.folder).out
    assert "founder" in world.run("peers", ready["ticket"]).out
    probe = world.run("probe", ready["ticket"], "--json")
    assert probe.code == 0 and probe.json["admitted"] is True and probe.json["addresses"][0]["rtt_seconds"] > 0


def test_human_output_has_exactly_one_ticket(world):
    folder = world.folder / "human"
    command = [world.binary, "run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", folder]
    out = (world.folder / "out").open("w+")
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=world.environment)
    try:
        text = wait_for(lambda: (world.folder / "out").read_text().partition("state,")[0], "the ready text")
        assert text.count("longhaul://") == 1
    finally:
        process.terminate()
        assert exit_code(process, PATIENCE) == 0


def test_files_of_a_node_are_private(world):
    founder = world.found()
    founder.ready()
    for name in ["identity", "control.sock"]:
        assert stat.S_IMODE((founder.folder / name).stat().st_mode) == 0o600, name
    founder.stop()
    assert not (founder.folder / "control.sock").exists()


def test_threads(world):
    founder = world.found()
    founder.ready()
    founder.wait_for_round(3)
    assert len(os.listdir(f"/proc/{founder.process.pid}/task")) <= 8


def test_one_log_line_a_round(world):
    founder = world.found(rounds=6)
    done = founder.wait()
    assert done.code == 0
    lines = [line for line in done.err.splitlines() if " round=" in line]
    assert len(lines) == 6
    assert all("peers=1/1" in line and "loss=" in line and "sync=" in line for line in lines)


def test_json_and_logfmt_logs(world):
    done = world.found("a", "--log-format", "json", rounds=3).wait()
    assert [json.loads(line)["round"] for line in done.err.splitlines() if "round_committed" in line] == [1, 2, 3]
    done = world.found("b", "--log-format", "logfmt", rounds=3).wait()
    assert sum("event=round_committed" in line for line in done.err.splitlines()) == 3


# -- ending ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_cleanly_and_the_run_resumes(world, number):
    founder = world.found()
    run = founder.ready()["run"]
    founder.wait_for_round(3)
    founder.process.send_signal(number)
    done = founder.wait()
    assert done.code == 0, done.err
    reached = founder.events("round_committed")[-1]["round"]
    again = world.found()
    ready = again.ready()
    assert ready["resumed"] is True and ready["run"] == run
    again.wait_for_round(reached + 1)
    rounds = [e["round"] for e in again.events("round_committed")]
    assert rounds == sorted(set(rounds)), "no round was committed twice"


def test_a_killed_founder_resumes_from_its_checkpoint(world):
    founder = world.found()
    run = founder.ready()["run"]
    founder.wait_for_round(5)
    founder.kill()
    again = world.found()
    assert again.ready()["run"] == run
    reached = again.events("round_committed")[-1]["round"]
    again.wait_for_round(reached + 3)


def test_the_launchers_death_ends_the_daemon(world):
    reading, writing = os.pipe()
    founder = world.start(
        "founder", "run", world.config(), "--listen", "127.0.0.1:0", "--die-with-fd", reading, pass_fds=(reading,)
    )
    founder.ready()
    os.close(reading)
    assert founder.alive()
    os.close(writing)
    assert founder.wait().code == 0


def test_a_founder_says_whom_it_waits_for(world):
    founder = world.found(min_peers=3)
    (waiting,) = wait_for(lambda: founder.events("waiting"), "the founder saying that it waits")
    assert waiting["reason"] == "the first round begins with 3 peers (peers.min); 1 of them are here"
    assert still_serves(world, founder)["waiting_for"] == waiting["reason"]
    assert waiting["reason"] in founder.err.read_text()
    assert waiting["reason"] in world.run("status", "--state-dir", founder.folder).out


def test_the_end_names_the_loss_and_the_checkpoint(world):
    founder = world.found(rounds=20)
    told = founder.end()
    assert (told["complete"], told["round"], told["rounds_total"]) == (True, 20, 20)
    assert told["reason"] == "the run is over"
    last = founder.events("round_committed")[-1]
    assert told["root"] == last["root"] and told["train_loss"] == pytest.approx(last["loss"])
    assert told["eval_loss"] == pytest.approx(founder.events("eval")[-1]["loss"])
    assert pathlib.Path(told["checkpoint"]) == founder.folder / "checkpoints" / "round-000000020"
    assert world.run("ckpt", "inspect", told["checkpoint"]).code == 0


def test_people_read_the_loss_and_the_checkpoint_at_the_end(world):
    folder = world.folder / "human"
    done = world.run("run", world.config(rounds=20), "--listen", "127.0.0.1:0", "--state-dir", folder)
    assert done.code == 0, done.err
    loss, checkpoint = done.out.splitlines()[-2:]
    assert loss.startswith("complete after round 20 of 20, held-out loss ")
    assert float(loss.rsplit(" ", 1)[1]) >= 0
    assert checkpoint == f"checkpoint: {folder}/checkpoints/round-000000020"


def test_an_interrupted_end_says_how_to_go_on(world):
    folder = world.folder / "human"
    command = [world.binary, "run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", folder]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=world.environment, text=True
    )
    wait_for(lambda: list(folder.glob("checkpoints/round-*")), "a checkpoint")
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert out[-3].startswith("stopped after round ") and out[-3].count(" of 1000000") == 1
    assert out[-2].startswith(f"checkpoint: {folder}/checkpoints/round-")
    assert out[-1] == "the same command goes on from there"


def test_the_same_commands_after_a_complete_run_end_at_once(world):
    """A member alone does not wait ten minutes for a coordinator that has nothing left to coordinate."""
    founder = world.found(min_peers=2, rounds=8)
    ticket = founder.ready()["ticket"]
    joiner = world.join("joiner", ticket)
    root = founder.end()["root"]
    assert joiner.end()["root"] == root
    alone = world.join("joiner", ticket).end()
    assert (alone["complete"], alone["round"], alone["root"]) == (True, 8, root)
    assert "complete" in alone["reason"]
    again = world.found(min_peers=2, rounds=8).end()
    assert (again["complete"], again["root"]) == (True, root)


def test_a_member_whose_coordinator_is_away_says_that_it_tries_again(world):
    founder = world.found(min_peers=2)
    ticket = founder.ready()["ticket"]
    joiner = world.join("joiner", ticket)
    joiner.ready()
    joiner.wait_for_round(3)
    joiner.stop()
    founder.kill()
    again = world.join("joiner", ticket)
    (first, *_) = wait_for(lambda: again.events("error"), "a word on the wait")
    assert "trying again for 10 min" in first["message"], first
    assert again.alive()
    assert again.stop().code == 0


def test_waiting_for_peers_can_be_interrupted(world):
    founder = world.found(min_peers=3)
    founder.ready()
    assert founder.stop().code == 0


def test_leave_stop_pause_resume(world):
    founder = world.found(min_peers=2)
    joiner = world.join("joiner", founder.ready()["ticket"])
    joiner.ready()
    founder.wait_for_round(1)
    refused = world.run("stop", "--state-dir", joiner.folder)
    assert refused.code == 2 and "coordinator" in refused.sentence
    assert world.run("pause", "--state-dir", founder.folder).code == 0

    def state():
        return world.run("status", "--state-dir", founder.folder, "--json").json

    wait_for(lambda: state()["state"] == "paused", "the pause")
    held = state()["applied"]
    assert world.run("resume", "--state-dir", founder.folder).code == 0
    founder.wait_for_round(held + 1)
    assert world.run("stop", "--state-dir", founder.folder).code == 0
    assert founder.wait().code == 0
    assert joiner.wait().code == 0


@pytest.mark.parametrize("how", ["leave", "signal"])
def test_a_node_that_leaves_says_so(world, how):
    founder = world.found()
    joiner = world.join("joiner", founder.ready()["ticket"])
    joiner.ready()
    if how == "leave":
        assert world.run("leave", "--state-dir", joiner.folder).code == 0
    else:
        joiner.process.send_signal(signal.SIGINT)
    assert joiner.wait().code == 0
    wait_for(lambda: still_serves(world, founder)["alive"] == 1, "the founder noticing")
    # Not taken for a failure: nobody redials it, and its place is free.
    (left,) = wait_for(lambda: founder.events("left"), "the departure in the log")
    (down,) = founder.events("peer_down")
    assert left["number"] == down["number"]
    assert left["reason"] == down["reason"] and "lost" not in left["reason"], left


def test_a_dead_peer_gives_its_place_to_another_and_comes_back(world):
    config = world.config()
    config.write_text(config.read_text().replace("min = 1", "min = 1\nmax = 2"))
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0")
    ticket = founder.ready()["ticket"]
    first = world.join("first", ticket)
    first.ready()
    second = world.join("second", ticket)
    full = second.wait()
    assert full.code == 77 and "the run is full" in full.sentence
    first.kill()
    wait_for(lambda: founder.events("peer_down"), "the founder noticing")
    second = world.join("second", ticket)
    second.ready()
    assert founder.events("left")[-1]["reason"] == "away while another peer wanted its place"
    again = world.join("first", ticket)
    again.ready()
    wait_for(lambda: still_serves(world, founder)["alive"] == 3, "all three")


# -- bad input: one sentence, the right code, and the receiver lives -------------------------------


def test_port_in_use(world):
    with listener() as taken:
        port = taken.getsockname()[1]
        done = world.start("founder", "run", world.config(), "--listen", f"127.0.0.1:{port}").wait()
    assert done.code == 78
    assert str(port) in done.sentence


def test_a_second_daemon_on_one_state_folder(world):
    founder = world.found()
    founder.ready()
    done = world.run("run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", founder.folder)
    assert done.code == 78
    assert str(founder.folder) in done.sentence
    still_serves(world, founder)


def change_key(ticket, where):
    """Another character in the key: in the run id (the first 43) or in what follows."""
    before, key = ticket.split("#")
    place = 5 if where == "run" else len(key) - 12
    changed = "A" if key[place] != "A" else "B"
    return f"{before}#{key[:place]}{changed}{key[place + 1:]}"


@pytest.mark.parametrize(("where", "code"), [("run", 76), ("secret", 77)])
def test_wrong_key_in_the_ticket(world, where, code):
    founder = world.found()
    ticket = change_key(founder.ready()["ticket"], where)
    done = world.join("joiner", ticket).wait()
    assert done.code == code, done.err
    assert done.sentence
    assert world.run("status", ticket).code == code
    probe = world.run("probe", ticket, "--json")
    assert probe.code == code and probe.json["admitted"] is False
    still_serves(world, founder)


def test_a_bare_address_does_not_open_an_invite_run(world):
    founder = world.found()
    done = world.join("joiner", founder.ready()["listen"]).wait()
    assert done.code == 77, done.err
    assert "ticket" in done.sentence
    still_serves(world, founder)


def test_a_bare_address_opens_an_open_run_and_prints_whom_it_trusts(world):
    founder = world.found(admission="open")
    ready = founder.ready()
    process = subprocess.Popen(
        [world.binary, "join", ready["listen"], "--listen", "127.0.0.1:0", "--state-dir", world.folder / "j"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=world.environment,
        text=True,
    )
    try:
        assert ready["run"] in process.stdout.readline()
    finally:
        process.terminate()
        exit_code(process, PATIENCE)


def test_another_model_than_expected(world):
    founder = world.found()
    ticket = founder.ready()["ticket"]
    other = world.folder / "other.toml"
    other.write_text(world.config().read_text().replace("width = 64", "width = 65"))
    done = world.start("joiner", "join", ticket, other, "--listen", "127.0.0.1:0").wait()
    assert done.code == 76, done.err
    assert "64" in done.sentence and "65" in done.sentence
    assert still_serves(world, founder)["alive"] == 1


def test_another_run_in_the_state_folder(world):
    first = world.found("first")
    ticket = world.found("second").ready()["ticket"]
    joiner = world.join("joiner", first.ready()["ticket"])
    joiner.ready()
    joiner.stop()
    done = world.join("joiner", ticket).wait()
    assert done.code == 78
    assert "--state-dir" in done.sentence


def test_other_settings_in_the_state_folder(world):
    founder = world.found()
    founder.ready()
    founder.stop()
    done = world.found(rounds=77).wait()
    assert done.code == 78
    assert "77" in done.sentence


def test_a_founder_of_another_protocol_version(world):
    with listener() as server:
        joiner = world.join("joiner", f"127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as connection:
            connection.settimeout(PATIENCE)
            assert connection.recv(96).startswith(b"LONGHAUL")
            connection.sendall(hello(wire_min=7, wire_max=9, role=3))
            done = joiner.wait()
    assert done.code == 76, done.err
    assert "7" in done.sentence and "9" in done.sentence


def test_a_joiner_of_another_protocol_version(world):
    founder = world.found()
    with socket.create_connection(("127.0.0.1", port_of(founder.ready())), timeout=PATIENCE) as stranger:
        stranger.sendall(hello(wire_min=7, wire_max=9))
        answer = stranger.recv(96)
        assert answer.startswith(b"LONGHAUL"), "so that the stranger can name the difference"
        assert struct.unpack("<HH", answer[8:12]) == (WIRE_VERSION, WIRE_VERSION)
        assert stranger.recv(1) == b""
    still_serves(world, founder)


def test_something_else_than_longhaul_answers(world):
    with listener() as server:
        joiner = world.join("joiner", f"127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8)
            done = joiner.wait()
    assert done.code == 76, done.err
    assert done.sentence


GARBAGE = {
    "nothing": b"",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10,
    "zeros": bytes(4096),
    "half a hello": hello()[:50],
    "a hello of another run": hello(run=b"\x11" * 32),
    "a hello, then zeros": hello() + bytes(1000),
    "an empty frame": hello() + b"\0\0",
    "an oversized frame": hello() + b"\xff\xff" + bytes(65535),
    "a truncated frame": hello() + struct.pack("<H", 48) + bytes(20),
    "a whole frame of nonsense": hello() + struct.pack("<H", 48) + os.urandom(48),
    "bulk without a session": hello(role=2),
    "bulk of a session that nobody has": hello(role=2, session=b"\x22" * 16, connection=1) + b"\0\x30" + bytes(48),
    "an unknown role": hello(role=9),
    "noise": os.urandom(1 << 20),
}


def test_garbage_on_the_port(world):
    founder = world.found()
    ready = founder.ready()
    for what, data in GARBAGE.items():
        for half_close in (False, True):
            with socket.create_connection(("127.0.0.1", port_of(ready)), timeout=PATIENCE) as stranger:
                try:
                    stranger.sendall(data)
                    if half_close:
                        stranger.shutdown(socket.SHUT_WR)
                        while stranger.recv(65536):
                            pass
                except OSError:  # it hung up, also between two of our calls
                    pass
        assert founder.alive(), f"{what}: {founder.err.read_text()}"
    still_serves(world, founder)
    # And it still admits those who are welcome.
    world.join("joiner", ready["ticket"]).ready()


def test_garbage_on_the_control_socket(world):
    founder = world.found()
    founder.ready()
    lines = [b"\n", b"{}\n", b'{"do":"fly"}\n', b'{"do":1}\n', b"[" * 5000, b"x" * 100000, b'{"do":"status"']
    for data in [*lines, os.urandom(3000) + b"\n"]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(founder.folder / "control.sock"))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):  # closed with some of the garbage unread
                while part := client.recv(65536):
                    answer += part
            for line in answer.splitlines():
                assert json.loads(line)["ok"] is False
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for client in crowd:
        client.connect(str(founder.folder / "control.sock"))
    for client in crowd:
        client.close()
    wait_for(lambda: world.run("status", "--state-dir", founder.folder).code == 0, "the crowd being gone")
    assert founder.alive()


def test_a_missing_data_file(world):
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    config = world.folder / "text.toml"
    config.write_text('[data]\nkind = "text"\npath = "absent.txt"\n')
    done = world.start("founder", "run", config, "--listen", "127.0.0.1:0").wait()
    assert done.code == 78, done.err
    assert "absent.txt" in done.sentence


TEXT_RUN = """
name = "text-run"
[model]
layers = 1
width = 8
heads = 1
context = 8
[data]
kind = "{kind}"
path = "{path}"
eval_batches = 1
[inner]
steps = 1
batch = 2
[stop]
rounds = 1000000
"""


def text_run(world, kind):
    """A run on a text, and the text."""
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    text = world.folder / "poem.txt"
    text.write_bytes(b"To be, or not to be, that is the question.\n" * 2000)
    config = world.folder / "text.toml"
    config.write_text(TEXT_RUN.format(kind=kind, path=text))
    return config, text


def found_text_run(world, kind):
    """A founder that trains on a text of its own, and the text."""
    config, text = text_run(world, kind)
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    return founder, founder.ready()["ticket"], text


def test_two_peers_of_one_shard_draw_other_batches(world):
    """At one anchor the loss of a step is that of its batch alone."""
    config, text = text_run(world, "text")
    short = config.read_text().replace("1000000", "6")
    config.write_text(short.replace("[data]", "[peers]\nmin = 2\n[data]\nshards = 1"))
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    joiner = world.join("joiner", founder.ready()["ticket"], "--data", text, "--threads", "1")
    losses = [{e["round"]: e["loss"] for e in n.events("inner")} for n in (founder, joiner) if n.wait().code == 0]
    shared = set(losses[0]) & set(losses[1])
    assert len(shared) >= 3
    assert [losses[0][r] for r in shared] != [losses[1][r] for r in shared], "the same work, done twice"


def test_a_joiner_without_the_text_is_told_which_one_the_run_wants(world):
    founder, ticket, text = found_text_run(world, "text")
    done = world.join("joiner", ticket).wait()
    assert done.code == 78, done.err
    description = founder.events("started")[0]["data"]
    assert description in done.sentence and "poem.txt" in description and "hash" in description
    assert "--data" in done.sentence
    other = world.folder / "prose.txt"
    other.write_bytes(text.read_bytes().replace(b"question", b"quibble?"))
    done = world.join("joiner", ticket, "--data", other).wait()
    assert done.code == 76, done.err
    assert "prose.txt" in done.sentence and description in done.sentence
    assert still_serves(world, founder)["alive"] == 1
    copy = world.folder / "copy.txt"
    copy.write_bytes(text.read_bytes())
    world.join("joiner", ticket, "--data", copy, "--threads", "1").ready()


def test_a_joiner_whose_default_text_differs_is_told_so_by_name(world):
    """data.kind = "auto": a joiner that names nothing takes the default, Python's standard library."""
    founder, ticket, _ = found_text_run(world, "auto")
    done = world.join("joiner", ticket).wait()
    assert done.code == 76, done.err
    assert "standard library" in done.sentence and "poem.txt" in done.sentence
    assert still_serves(world, founder)["alive"] == 1


def test_the_readmes_run_starts_as_printed(world):
    """Somebody without any data copies it and founds the run."""
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    config = world.folder / "readme.toml"
    config.write_text(re.search(r"```toml\n(name = .*?)```", (ROOT / "README.md").read_text(), re.S).group(1))
    founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
    founder.ready()
    wait_for(lambda: founder.events("waiting"), "the founder waiting for the second peer")


def test_a_trainer_that_does_not_fit_the_model(world):
    config = world.folder / "gpt.toml"
    config.write_text("")
    done = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--trainer", "quadratic").wait()
    assert done.code == 78
    assert "gpt" in done.sentence


def test_not_enough_memory(world):
    done = world.found("founder", "--memory", "1 kB").wait()
    assert done.code == 78
    assert "memory" in done.sentence and "--memory" in done.sentence


def test_started_tells_the_memory_that_is_refused_when_there_is_less(world):
    founder = world.found("founder", rounds=2)
    assert founder.wait(60).code == 0
    needed = founder.events("started")[0]["memory"]
    refused = world.found("less", "--memory", f"{needed - 1} B", rounds=2).wait()
    assert refused.code == 78 and "memory" in refused.sentence
    assert world.found("enough", "--memory", f"{needed} B", rounds=2).wait(60).code == 0


def damage(path: pathlib.Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "flip":
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flip", "truncate"])
@pytest.mark.parametrize("name", ["model.safetensors", "outer.safetensors", "state.json"])
def test_a_damaged_checkpoint(world, how, name):
    founder = world.found()
    founder.ready()

    def complete():
        folder = founder.folder / "checkpoints"
        return sorted(folder.glob("round-*")) if folder.exists() else []

    wait_for(lambda: len(complete()) >= 2, "two checkpoints")
    founder.kill()
    checkpoints = complete()
    newest = int(checkpoints[-1].name.removeprefix("round-"))
    previous = int(checkpoints[-2].name.removeprefix("round-"))
    damage(checkpoints[-1] / name, how)
    refused = world.run("ckpt", "inspect", checkpoints[-1])
    assert refused.code == 78 and name in refused.sentence

    seen = len(founder.events("round_committed"))
    again = world.found()
    assert again.ready()["resumed"] is True
    errors = [e["message"] for e in again.events("error")]
    assert any(f"round {newest} " in e and "damaged" in e for e in errors), errors
    wait_for(lambda: len(again.events("round_committed")) > seen, "the run going on")
    assert again.events("round_committed")[seen]["round"] in range(previous + 1, newest + 1)


@pytest.mark.parametrize("name", ["incarnation", "run/secrets", "run/manifest", "identity"])
def test_a_damaged_file_of_the_node_is_named(world, name):
    founder = world.found()
    founder.ready()
    founder.stop()
    (founder.folder / name).write_bytes(b"")
    done = world.found().wait()
    assert done.code == 78, done.err
    assert name in done.sentence and ("restore it" in done.sentence or "remove it" in done.sentence)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, where the kernel lets this user make one."""
    at = tmp_path / "founder"
    at.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "longhaul-test", at], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def test_disk_full_at_the_start(world, small_disk):
    (small_disk / "filler").write_bytes(bytes((1 << 20) - 8192))
    with contextlib.suppress(OSError), (small_disk / "more").open("wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    done = world.run("run", world.config(), "--listen", "127.0.0.1:0", "--state-dir", small_disk)
    assert done.code == 1, done.err
    assert "space" in done.sentence


def test_disk_full_while_training(world, small_disk):
    """Checkpoints that do not fit are reported; the run goes on, and ends with an error: its end is not saved."""
    config = world.config(rounds=8)
    config.write_text(config.read_text().replace("width = 64", "width = 100000"))
    command = ["run", config, "--listen", "127.0.0.1:0", "--state-dir", small_disk, "--trainer", "quadratic"]
    done = world.run(*command)
    assert done.code == 1, done.err
    assert "space" in done.sentence


def test_fit_budget(world):
    founder = world.found("founder", "--fit-budget", "2 s", "--fit-peers", "1", rounds=1000)
    done = founder.wait(120)
    assert done.code == 0
    started = founder.events("started")[0]
    assert "rounds of" in done.err
    assert founder.events("round_committed")[-1]["round"] >= 20
    assert started["run"]
