"""Runs of real daemons whose rounds exchange a part of the model each, in turn."""

import math

import pytest
from nodes import World

IN_PARTS = ("--set", "exchange.fragments=3", "--set", "model.width=8192", "--set", "exchange.codec=int8")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("delay", (0, 1))
def test_parts_in_turn_make_one_model(world, delay):
    founder = world.found("founder", *IN_PARTS, "--set", f"exchange.delay={delay}", min_peers=3, rounds=18)
    ticket = founder.ready()["ticket"]
    nodes = [founder, *(world.join(f"peer-{i}", ticket) for i in (1, 2))]
    for node in nodes:
        assert node.wait().code == 0, node.err.read_text()
    roots = [{e["round"]: e["root"] for e in node.events("round_committed")} for node in nodes]
    assert roots[0].keys() == set(range(1, 19))
    for seen in roots[1:]:
        assert {r: roots[0][r] for r in seen} == seen
    for node in nodes:
        commits = node.events("round_committed")
        assert all(e["fragment"] == (e["round"] - 1) % 3 + 1 for e in commits)
        last = commits[-1]
        parts = last["mass_sent"] + last["mass_residual"] + last["mass_lost"]
        assert math.isclose(last["mass_produced"], parts, abs_tol=last["mass_rounding"])
    losses = {e["round"]: e["loss"] for node in nodes for e in node.events("eval")}
    assert losses[18] < 0.99 * losses[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        # A vector has no rows to cut between.
        (("exchange.fragments=2",), ("exchange.fragments = 2", "1 is possible")),
        (("exchange.fragments=65",), ("exchange.fragments", "from 1 to 64")),
        (("exchange.fragments=2", "exchange.feedback=ef"), ("exchange.feedback", 'feedback = "none"')),
    ],
)
def test_what_cannot_be_cut_is_refused_by_one_sentence(world, settings, words):
    flags = [word for setting in settings for word in ("--set", setting)]
    done = world.found("founder", *flags).wait()
    assert done.code == 78
    for word in words:
        assert word in done.sentence
