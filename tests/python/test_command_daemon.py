"""The real binary as a daemon: two commands make a run; how a node ends, and how it comes back."""

import json
import os
import pathlib
import signal
import stat
import subprocess

import pytest
from nodes import PATIENCE, wait_for
from pace import exit_code

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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_under_nohup_a_closed_terminal_is_ignored(world):
    founder = world.start("founder", "run", world.config(), "--listen", "127.0.0.1:0", within=["nohup"])
    founder.ready()
    founder.process.send_signal(signal.SIGHUP)
    at = founder.events("round_committed")[-1]["round"] if founder.events("round_committed") else 0
    founder.wait_for_round(at + 3)
    assert founder.stop().code == 0


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
    assert world.still_serves(founder)["waiting_for"] == waiting["reason"]
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


def test_a_stopped_run_goes_on_from_the_same_commands_and_says_so(world):
    folders = {name: world.folder / name for name in ("founder", "joiner")}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "env": world.environment, "text": True}
    common = ["--listen", "127.0.0.1:0", "--state-dir"]
    founding = [world.binary, "run", world.config(min_peers=2), *common, folders["founder"]]
    founder = subprocess.Popen(founding, **pipes)
    joiner = None
    try:
        ticket = next(line.split("'")[1] for line in founder.stdout if "longhaul join" in line)
        joiner = subprocess.Popen([world.binary, "join", ticket, *common, folders["joiner"]], **pipes)
        wait_for(lambda: list(folders["joiner"].glob("checkpoints/round-*")), "a checkpoint")
        assert world.run("stop", "--state-dir", folders["founder"]).code == 0
        said = [process.communicate(timeout=PATIENCE)[0].splitlines() for process in (founder, joiner)]
    finally:
        for process in filter(None, (founder, joiner)):
            process.kill()
            process.wait()
    stopped = "the run is stopped for everybody: "
    assert said[0][-1] == stopped + "the same command goes on from there, and then the others' do"
    assert said[1][-1] == stopped + "when others go on, the same command rejoins it"
    applied = int(said[0][-3].split(" of ")[0].rsplit(" ", 1)[1])
    # The founder comes back where its ticket says, as with the port that it listens on by default.
    address = ticket.split("//")[1].split("/")[0]
    founder_again = world.start("founder", "run", world.config(min_peers=2), "--listen", address)
    for node in [founder_again, world.join("joiner", ticket)]:
        node.wait_for_round(applied + 2)
        assert node.events("started")[-1]["resumed"] is True


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
    wait_for(lambda: world.still_serves(founder)["alive"] == 1, "the founder noticing")
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
    wait_for(lambda: world.still_serves(founder)["alive"] == 3, "all three")
