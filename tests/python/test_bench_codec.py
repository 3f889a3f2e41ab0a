"""`longhaul bench codec`: the contract that other programs read."""

from __future__ import annotations

import json
import subprocess

import pytest


def bench(daemon, *flags):
    command = [daemon, "bench", "codec", "--json", "--repeat", "1", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_every_codec_has_a_row(daemon):
    rows = {r["codec"]: r for r in bench(daemon, "--elements", "1000000")}
    assert {"f32", "bf16", "int8", "int4", "e3m0", "topk-64/4096"} <= set(rows)
    for r in rows.values():
        for what in ("encode", "feedback", "two_threads", "decode", "memcpy"):
            assert r[f"{what}_bytes_per_second"] > 0
    # Chunk headers are counted: 219 bytes for each of the 62 chunks.
    assert rows["f32"]["bits_per_element"] == pytest.approx(32 + 62 * 219 * 8 / 1e6, rel=1e-3)
    assert rows["f32"]["relative_error"] == 0
    assert 0 < rows["int8"]["relative_error"] < rows["int4"]["relative_error"] < rows["sign1"]["relative_error"] < 1


def test_one_codec_and_random_rounding(daemon):
    nearest, rounded = (bench(daemon, "--elements", "100000", "--codec", "int8", *f)[0] for f in ([], ["--stochastic"]))
    assert nearest["rounding"] == "nearest" and rounded["rounding"] == "stochastic"
    assert rounded["relative_error"] > 1.2 * nearest["relative_error"]


def test_an_unknown_codec_is_refused(daemon):
    done = subprocess.run([daemon, "bench", "codec", "--codec", "int3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
