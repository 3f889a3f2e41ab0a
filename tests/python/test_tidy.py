"""Each rule of scripts/tidy fires on a planted violation, and only that one."""

import importlib.machinery
import importlib.util
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_tidy():
    loader = importlib.machinery.SourceFileLoader("tidy", str(ROOT / "scripts" / "tidy"))
    spec = importlib.util.spec_from_loader("tidy", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


tidy = load_tidy()
needs_format = pytest.mark.skipif(not shutil.which(tidy.CLANG_FORMAT), reason=f"{tidy.CLANG_FORMAT} is not installed")


def findings(tmp_path: pathlib.Path, name: str, text: str, with_format: bool = False):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [(f.rule, f.line) for f in tidy.check_tree(tmp_path, with_format)]


UNFINISHED = "TO" + "DO"

PLANTED = [
    ("core/a.cpp", '#include "net/link.hpp"\n', "layers"),
    ("net/a.cpp", '#include "peers/peer.hpp"\n', "layers"),
    ("compress/a.cpp", '#include "optim/outer.hpp"\n', "layers"),
    ("optim/a.cpp", '#include "peers/peer.hpp"\n', "layers"),
    ("peers/a.cpp", '#include "sim/world.hpp"\n', "layers"),
    ("sim/a.cpp", '#include "tests/test.hpp"\n', "layers"),
    ("net/a.cpp", '#include "../core/result.hpp"\n', "layers"),
    ("peers/a.cpp", "auto t = std::chrono::steady_clock::now();\n", "ban"),
    ("peers/a.cpp", "auto t = system_clock::now();\n", "ban"),
    ("core/a.cpp", "std::random_device d;\n", "ban"),
    ("net/a.cpp", "randombytes_buf(p, 32);\n", "ban"),
    ("net/a.cpp", "std::this_thread::sleep_for(1s);\n", "ban"),
    ("net/a.cpp", "usleep(5);\n", "ban"),
    ("net/a.cpp", "::sleep(5);\n", "ban"),
    ("peers/a.cpp", "asio::steady_timer t{io};\n", "ban"),
    ("optim/a.cpp", "std::thread t{f};\n", "ban"),
    ("optim/a.cpp", "auto f = std::async(g);\n", "ban"),
    ("net/link.cpp", "#include <asio/ip/tcp.hpp>\n", "ban"),
    ("optim/a.cpp", "#include <torch/torch.h>\n", "ban"),
    ("compress/a.cpp", "#include <cuda_runtime.h>\n", "ban"),
    ("net/a.cpp", "#include <asio.hpp>\n", "ban"),
    ("peers/a.cpp", "co_spawn(e, f(), asio::detached);\n", "ban"),
    ("sim/a.cpp", "std::unordered_map<int, int> m;\n", "order"),
    ("core/a.hpp", "#include <vector>\n", "header"),
    ("core/a.hpp", "#pragma once\n#pragma once\n", "header"),
    ("core/a.hpp", "#pragma once\n#include <nlohmann/json.hpp>\n", "header"),
    ("net/a.hpp", '#pragma once\n#include "net/wire.pb.h"\n', "header"),
    ("core/a.hpp", "#pragma once\nusing namespace std;\n", "header"),
    ("tests/unit/a_test.cpp", 'TEST_CASE("unit lies in [0, 1)") {}\n', "test name"),
    ("tests/unit/a_test.cpp", 'TEST_CASE(\n    "this; that", "[tag]") {}\n', "test name"),
    ("core/a.cpp", "int a; \n", "text"),
    ("core/a.cpp", "\tint a;\n", "text"),
    ("core/a.cpp", f"// {UNFINISHED}: later\n", "text"),
    ("core/a.cpp", "int a;", "text"),
    ("core/a.cpp", f"// {'x' * 120}\n", "text"),
    ("core/a.cpp", "int a;\n" * 701, "text"),
]


@pytest.mark.parametrize(("name", "text", "rule"), PLANTED)
def test_rule_fires(tmp_path, name, text, rule):
    assert {r for r, _ in findings(tmp_path, name, text)} == {rule}


ALLOWED = [
    ("net/asio_network.cpp", "#include <asio/ip/tcp.hpp>\nauto t = steady_clock::now();\n"),
    ("core/task.cpp", "asio::steady_timer t{io};\n"),
    ("core/thread_workers.cpp", "std::thread t{f};\n"),
    ("optim/torch/gpt.cpp", "#include <torch/torch.h>\n"),
    ("compress/cuda/a.cu", "#include <cuda_runtime.h>\n"),
    ("peers/command/sim.cpp", '#include "sim/world.hpp"\n'),
    ("tests/unit/a.cpp", '#include "sim/world.hpp"\nstd::thread t{f};\n'),
    ("peers/a.cpp", "// steady_clock::now is banned\n/* std::thread */ const char* s = \"std::thread\";\n"),
    ("core/a.hpp", "#pragma once\nusing namespace std::chrono_literals;\n"),
    ("optim/a.cpp", "std::unordered_map<int, int> m;\n"),
    ("tests/unit/a_test.cpp", 'TEST_CASE("plain, and: fine", "[tag]") {}\n'),
    ("sim/a.cpp", "co_await process::sleep(5);\nco_await sleep(5);\n"),
    ("core/a.cpp", "int a;\n" * 699),
]


@pytest.mark.parametrize(("name", "text"), ALLOWED)
def test_rule_leaves_alone(tmp_path, name, text):
    assert findings(tmp_path, name, text) == []


def test_line_numbers_survive_comments(tmp_path):
    text = "/* two\n lines */\n// one\nstd::thread t{f};\n"
    assert findings(tmp_path, "net/a.cpp", text) == [("ban", 4)]


@needs_format
def test_format_fires(tmp_path):
    shutil.copy(ROOT / ".clang-format", tmp_path)
    assert findings(tmp_path, "core/a.cpp", "int   a;\n", with_format=True) == [("format", 1)]
    assert findings(tmp_path, "core/a.cpp", "int a;\n", with_format=True) == []


def test_this_tree_is_checked():
    """The rules look at real files: a walk that finds nothing would pass for ever."""
    names = [n for n in tidy.tracked_files(ROOT) if tidy.is_source(n)]
    assert len(names) > 20
    assert "core/task.cpp" in names
