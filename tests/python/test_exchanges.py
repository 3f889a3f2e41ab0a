"""Runs of real daemons whose rounds have several exchanges each."""

import math

import pytest
from nodes import World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("deco", (False, True))
def test_exchanges_in_turn_make_one_model(world, deco):
    words = ["exchange.every=1", "inner.steps=12"]
    words += ["exchange.codec=topk-4/64", "exchange.feedback=ef", "exchange.staleness=2"] if deco else []
    flags = [word for setting in words for word in ("--set", setting)]
    founder = world.found("founder", *flags, min_peers=3, rounds=6)
    ticket = founder.ready()["ticket"]
    nodes = [founder, *(world.join(f"peer-{i}", ticket) for i in (1, 2))]
    for node in nodes:
        assert node.wait().code == 0, node.err.read_text()
    roots = [{e["round"]: e["root"] for e in node.events("round_committed")} for node in nodes]
    assert roots[0].keys() == set(range(1, 7))
    for seen in roots[1:]:
        assert {r: roots[0][r] for r in seen} == seen
    for node in nodes:
        last = node.events("round_committed")[-1]
        assert last["tau_steps"] == (2 if deco else 0)
        parts = last["mass_sent"] + last["mass_residual"] + last["mass_lost"]
        assert math.isclose(last["mass_produced"], parts, abs_tol=last["mass_rounding"])
    losses = {e["round"]: e["loss"] for node in nodes for e in node.events("eval")}
    assert losses[6] < 0.99 * losses[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("exchange.every=1000",), ("exchange.every = 1000", "give 1 to")),
        (("exchange.staleness=1",), ("exchange.staleness = 1", "give exchange.every")),
        (("exchange.every=1", "exchange.delay=1"), ("exchange.every = 1", "exchange.delay = 0")),
    ],
)
def test_exchanges_that_do_not_fit_are_refused_by_one_sentence(world, settings, words):
    flags = [word for setting in settings for word in ("--set", setting)]
    done = world.found("founder", *flags).wait()
    assert done.code == 78
    for word in words:
        assert word in done.sentence
