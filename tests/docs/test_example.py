"""The examples in README and docs run, and print what the page says they print."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from page import ROOT, Block, blocks, pages

SHOWN_ADDRESS = "127.0.0.1:8080"
ADMIN_KEY = "an-admin-key-for-the-examples-in-the-docs"
DEADLINE_S = 60
COMMANDS = ("lukhas", "curl")


def matches(shown: str, printed: str) -> bool:
    """Say whether a page's output is what was printed; `...` on a page stands for any text, line ends included."""
    pattern = r".*?".join(re.escape(part) for part in _trimmed(shown).split("..."))
    return re.fullmatch(pattern, _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def steps(text: str) -> list[tuple[str, str]]:
    """Split a console block into commands, each with the output that the page shows below it."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        if found and found[-1][0].endswith("\\\n") and not found[-1][1]:
            found[-1] = (found[-1][0] + line, "")
        elif line.startswith("$ "):
            found.append((line[2:], ""))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + line)
        else:
            raise ValueError("a console block starts with a command: $ lukhas ...")
    return found


def environment(folder: Path, address: str) -> dict[str, str]:
    """Return the environment of an example: its own data, an address, a key, our programs first in PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LUKHAS_", "OPENAI_"))}
    url = f"http://{address}"
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "LUKHAS_DATA_DIR": str(folder / "data"),
        "LUKHAS_HOST": address.partition(":")[0],
        "LUKHAS_PORT": address.partition(":")[2],
        "LUKHAS_ADMIN_KEY": ADMIN_KEY,
        "LUKHAS_BASE_URL": url,
        "LUKHAS_API_KEY": ADMIN_KEY,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": ADMIN_KEY,
    }


@contextmanager
def gateway(environ: Mapping[str, str]) -> Iterator[None]:
    """Run `lukhas serve` with the echo upstream until the examples of a page are through."""
    log = Path(environ["LUKHAS_DATA_DIR"]).parent / "gateway.log"
    with log.open("wb") as sink:
        command = [str(Path(sys.executable).parent / "lukhas"), "serve"]
        process = subprocess.Popen(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        try:
            for _ in range(DEADLINE_S * 20):
                assert process.poll() is None, log.read_text("utf-8")
                try:
                    urllib.request.urlopen(f"{environ['LUKHAS_BASE_URL']}/healthz", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.05)
            else:
                raise AssertionError(f"the gateway did not answer:\n{log.read_text('utf-8')}")
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def run(arguments: list[str], environ: Mapping[str, str], folder: Path) -> str:
    """Run one example to its end and return all that it prints; a failure names it."""
    ran = subprocess.run(
        arguments,
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 0, f"exit status {ran.returncode}\n{ran.stdout}"
    return ran.stdout


def play(block: Block, shown: str | None, environ: Mapping[str, str], folder: Path) -> None:
    """Run one block and compare what it prints with what its page shows, where it shows something."""
    address = environ["LUKHAS_BASE_URL"].removeprefix("http://")
    where = f"{block.path.relative_to(ROOT)}:{block.line}"
    text = block.text.replace(SHOWN_ADDRESS, address)
    if block.language == "python":
        printed = run([sys.executable, "-W", "error", "-c", text], environ, folder).replace(address, SHOWN_ADDRESS)
        assert shown is None or matches(shown, printed), f"{where} printed:\n{printed}"
        return
    assert block.language == "console", f"{where}: only python and console blocks can run"
    for command, expected in steps(text):
        assert shlex.split(command)[0] in COMMANDS, f"{where}: only {' and '.join(COMMANDS)} lines can run"
        printed = run(["sh", "-c", command], environ, folder)
        assert matches(expected, printed), f"{where}: {command}printed:\n{printed}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in pages()])
def test_page_examples_run_and_print_what_is_shown(path: Path, tmp_path: Path) -> None:
    """Whoever types what the page says sees what the page shows."""
    found = blocks(path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environ = environment(tmp_path, f"127.0.0.1:{probe.getsockname()[1]}")
    (tmp_path / "work").mkdir()
    examples = [
        (block, after.text if after is not None and after.mark == "output" else None)
        for block, after in zip(found, [*found[1:], None], strict=False)
        if block.runs
    ]
    for block, shown in (e for e in examples if e[0].detail != "gateway"):
        play(block, shown, environ, tmp_path / "work")
    served = [e for e in examples if e[0].detail == "gateway"]
    if served:
        with gateway(environ):
            for block, shown in served:
                play(block, shown, environ, tmp_path / "work")


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in pages()])
def test_page_marks_are_meaningful(path: Path) -> None:
    """An output follows its example, a block that is left out says why, and Python is Python even then."""
    before: Block | None = None
    for block in blocks(path):
        where = f"{path.name}:{block.line}"
        if block.mark == "output":
            assert before is not None and before.runs, f"{where}: an output follows the block that prints it"
        elif block.mark == "not run":
            assert len(block.detail.split()) >= 2, f"{where}: say why it is not run"
        elif block.mark == "run":
            assert block.detail in ("", "gateway"), f"{where}: run, or run: gateway"
        if block.language == "python":
            compile(block.text, where, "exec")
        before = block


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        pytest.param("a\nb\n", "a\nb", True, id="equal"),
        pytest.param("a   \nb", "a\nb  \n", True, id="spaces-at-line-ends"),
        pytest.param("id aud_... end", "id aud_01HX end", True, id="within-a-line"),
        pytest.param("a\n...\nz", "a\nb\nc\nz", True, id="across-lines"),
        pytest.param("a\n...\nz", "a\nb\nc", False, id="end-is-missing"),
        pytest.param("a.b", "axb", False, id="one-dot-is-a-dot"),
        pytest.param("", "a", False, id="nothing-shown"),
    ],
)
def test_matches_output_is_judged(shown: str, printed: str, same: bool) -> None:
    """The comparison itself is strict but for the ellipsis."""
    assert matches(shown, printed) is same


def test_steps_console_text_is_split() -> None:
    """Commands may run over several lines, and need not print."""
    text = "$ lukhas a \\\n    --b\none\ntwo\n$ lukhas c\n"
    assert steps(text) == [("lukhas a \\\n    --b\n", "one\ntwo\n"), ("lukhas c\n", "")]
    with pytest.raises(ValueError, match="starts with a command"):
        steps("one\n")


def test_play_wrong_example_fails(tmp_path: Path) -> None:
    """An example that fails, or prints something else, is found."""
    environ = environment(tmp_path, "127.0.0.1:1")
    page = ROOT / "README.md"
    good = Block(page, 1, "python", "print('aud_1')", "run", "")
    play(good, "aud_...", environ, tmp_path)
    with pytest.raises(AssertionError, match=r"printed:\s+aud_1"):
        play(good, "aud_2", environ, tmp_path)
    with pytest.raises(AssertionError, match="exit status 1"):
        play(Block(page, 1, "python", "raise SystemExit(1)", "run", ""), None, environ, tmp_path)
    with pytest.raises(AssertionError, match="only lukhas and curl lines"):
        play(Block(page, 1, "console", "$ rm x\n", "run", ""), None, environ, tmp_path)
