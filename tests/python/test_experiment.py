"""The page of scripts/experiment diloco says what its numbers say, and fails when they miss the goal."""

from __future__ import annotations

import json
import pathlib

import pytest
from experiments import codecs, delay, diloco
from nodes import ROOT, World

ELEMENTS = 168_384


def result(lr: float, seed: int, final: float) -> dict:
    rounds = 100
    points = [(50, 2.0), (rounds, final)]
    return {
        "lr": lr,
        "seed": seed,
        "curve": [{"round": r, "tokens": r * 122_880, "loss": loss} for r, loss in points],
        "final": final,
        "elements": ELEMENTS,
        "payload_bytes_per_peer": 4 * ELEMENTS * 3000,
        "wire_sent_per_peer": 3 * 2.02 * ELEMENTS * rounds,
        "raw_bytes_per_peer": 3 * 4 * ELEMENTS * 3000,
        "seconds": 60.0,
    }


def page(tmp_path: pathlib.Path, local_loss: float) -> tuple[str, bool]:
    runs = diloco.Runs("text", 100, tmp_path, 1)
    local = [result(8e-3, s, local_loss) for s in (1, 2, 3)]
    joint = [result(4e-3, s, 1.6) for s in (1, 2, 3)]
    trials = {"diloco": local, "data-parallel": joint}
    return diloco.page(runs, trials, local, joint, "scripts/experiment diloco")


def test_the_baseline_reads_what_the_daemons_read(tmp_path):
    """Before the first step both have the initial parameters: equal losses are of equal batches."""
    pytest.importorskip("torch", reason="skipped: no torch in this Python")
    from experiments import baseline

    text = tmp_path / "text.txt"
    text.write_bytes(b"".join(b"%d times %d is %d.\n" % (i % 97, i % 89, i % 97 * (i % 89)) for i in range(20_000)))
    world = World(tmp_path)
    if not (world.binary.parent / "liblonghaul_torch.so").exists():
        pytest.skip("the LibTorch trainers are not built")
    config = tmp_path / "run.toml"
    config.write_text(diloco.run_toml(str(text), diloco.Setting(8e-3, steps=1), seed=3, rounds=1, peers=2))
    try:
        founder = world.start("founder", "run", config, "--listen", "127.0.0.1:0", "--threads", "1")
        joiner = world.join("joiner", founder.ready()["ticket"], "--data", text, "--threads", "1")
        losses = [node.events("inner")[0]["loss"] for node in (founder, joiner) if node.wait().code == 0]
    finally:
        world.end()
    joint = baseline.data_parallel(str(text), lr=8e-3, seed=3, rounds=1, steps=1, peers=2)
    assert sum(losses) / 2 == pytest.approx(joint["first_loss"], abs=1e-4)


def test_page_states_gap_and_ratios(tmp_path):
    text, ok = page(tmp_path, 1.632)
    assert ok
    assert "**+2.0%**" in text and "**60×** fewer" in text and "30× fewer than bf16" in text
    assert "| 2,021 MB | 1 |" in text and "33.7 MB | 60 |" in text and "| 34.0 MB | 59.4 |" in text


def test_page_fails_beyond_three_percent(tmp_path):
    text, ok = page(tmp_path, 1.68)
    assert not ok
    assert "**+5.0%**" in text


def test_finished_runs_are_not_run_again(tmp_path):
    runs = diloco.Runs("text", 100, tmp_path, 1)
    (tmp_path / "diloco-r100-lr0.008-seed1.json").write_text(json.dumps(result(8e-3, 1, 1.63)))
    assert runs.get("diloco", 8e-3, 1)["final"] == 1.63


def test_best_trial_gets_the_other_seeds(tmp_path, monkeypatch):
    runs = diloco.Runs("text", 100, tmp_path, 1)
    finals = {4e-3: 1.7, 8e-3: 1.6, 1.6e-2: 1.8}
    monkeypatch.setattr(runs, "get", lambda method, lr, seed: result(lr, seed, finals[lr] + seed / 100))
    trials, best = runs.tuned("diloco", 3)
    assert [t["lr"] for t in trials] == [4e-3, 8e-3, 1.6e-2]
    assert [(b["lr"], b["seed"]) for b in best] == [(8e-3, 1), (8e-3, 2), (8e-3, 3)]


def test_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="skipped: no matplotlib")
    diloco.draw(tmp_path, [result(8e-3, 1, 1.63)], [result(4e-3, 1, 1.6)])
    assert (tmp_path / "diloco.png").stat().st_size > 5_000


def test_a_delay_is_told_by_its_loss_and_by_the_tokens_for_the_same_loss():
    curve = [{"tokens": 100.0 * k, "loss": 3.0 - k / 10} for k in range(11)]
    assert delay.tokens_until(curve, 2.25) == pytest.approx(750)
    assert delay.tokens_until(curve, 1.5) == 1000
    at_once, late = {"final": 2.0, "curve": curve}, {"final": 2.2, "curve": curve}
    assert delay.row(30, [at_once], [[late], [at_once]]) == (
        "| 30 | 2.000 | 2.200, +10.0%, 1.25 × | 2.000, +0.0%, 1.00 × |"
    )


def test_a_codec_is_told_by_its_loss_and_its_bytes():
    full = [{"final": 2.0, "wire_sent_per_peer": 60e6}, {"final": 2.0, "wire_sent_per_peer": 60e6}]
    coarse = [{"final": 2.1, "wire_sent_per_peer": 6e6}, {"final": 2.3, "wire_sent_per_peer": 6e6}]
    assert codecs.row("topk-4/64", coarse, full) == (
        "| `topk-4/64` | ef | 2.200 ± 0.141 | +10.0% (+5.0%, +15.0%) | 2.00 MB | 10.0 |"
    )
    assert ", noise |" in codecs.row("int8", full, full)
    for codec in codecs.SETTINGS:
        text = diloco.run_toml("text", codecs.setting_of(codec), seed=1, rounds=2)
        assert f'codec = "{codec}"' in text


def test_it_sets_no_variable_that_its_daemons_would_take_for_a_setting():
    assert "LONGHAUL_" not in (ROOT / "scripts" / "experiment").read_text()
