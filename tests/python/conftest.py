"""Shared by the Python tests: where the tree is, and the daemon where it is built."""

import pathlib
import sys

import pytest
from nodes import World

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    return ROOT


@pytest.fixture(scope="session")
def daemon(root: pathlib.Path) -> pathlib.Path:
    """The release binary; tests of whole runs are skipped where it is not built."""
    path = root / "build" / "release" / "longhaul"
    if not path.exists():
        pytest.skip("build/release/longhaul is not built")
    return path


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.end()
