import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from held import Lab  # noqa: E402


@pytest.fixture
def lab(tmp_path):
    made: list[Lab] = []

    def build(scenario: str) -> Lab:
        made.append(Lab(tmp_path, scenario))
        return made[-1]

    yield build
    for one in made:
        one.close()
