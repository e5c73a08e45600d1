"""The pages: links lead somewhere, commands are such as there are, prose is wrapped and stays short."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from streamingvlm.cli.commands import make_app
from streamingvlm.core.policy import make_policy

ROOT = Path(__file__).parents[1]
#: Files that are not read in order to learn how something works: results, and what was tried.
RESULTS = {ROOT / f"docs/{name}.md" for name in ("performance", "benchmarks", "arcade_streams/proof")}
TOP = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "configs/train/README.md"]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*TOP, *DOCS, *sorted((ROOT / "dev").rglob("*.md"))]
WORDS, WIDTH = 14_000, 120

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`((?:streamingvlm|python) [^`]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
#: Written by a command, as wide as its tables and sentences are.
GENERATED = re.compile(r"<!-- begin:.*?<!-- end:[^>]*>", re.DOTALL)


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def prose(path: Path) -> str:
    """A page without blocks of code and what commands write."""
    return FENCED.sub("", GENERATED.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(prose(page)):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_lines_are_wrapped(page: Path) -> None:
    for line in prose(page).splitlines():
        if not line.startswith(("|", "#")):
            assert len(line) <= WIDTH, line


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_tables_are_whole(page: Path) -> None:
    """Every run of rows has a head and a line below it: a blank line would break a table in two."""
    for table in re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE):
        assert re.match(r"\|.*\|\n\|(?:-+\|)+\n", table), table


def test_the_pages_stay_short() -> None:
    counted = [TOP[0], *(page for page in DOCS if page not in RESULTS)]
    assert sum(len(page.read_text(encoding="utf-8").split()) for page in counted) < WORDS


def test_every_page_is_reached_from_the_first() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = [target for target, _ in LINK.findall(prose(page)) if target.endswith(".md")]
        waiting += sorted({(page.parent / target).resolve() for target in targets} & {*PAGES} - reached)
    assert {*DOCS} <= reached


def test_code_names_pages_that_there_are() -> None:
    files = [path for folder in ("src", "scripts") for path in (ROOT / folder).rglob("*.py")]
    named = {page for path in files for page in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))}
    assert named
    assert not {page for page in named if not (ROOT / page).exists()}


def test_every_command_is_in_the_reference() -> None:
    rows = [line for line in (ROOT / "docs/reference.md").read_text().splitlines() if line.startswith("| `")]
    first = " ".join(cell for line in rows for cell in re.findall(r"`([^`]+)`", line.split("|")[1]))
    top: Any = get_command(make_app())
    for name, command in top.commands.items():
        own = getattr(command, "commands", None)
        for full in [name] if own is None else [f"{name} {sub}" for sub in own]:
            assert re.search(rf"(^| ){full}( |$)", first), full


def commands(page: Path) -> list[tuple[str, bool]]:
    """Every command that a page names, without its comment, and whether it stands in running text."""
    text = page.read_text(encoding="utf-8")
    plain = [block.replace("\\\n", " ") for language, block in FENCED.findall(text) if not language]
    fenced = [line.partition(" #")[0].strip() for block in plain for line in block.splitlines()]
    found = [(line, False) for line in fenced if line.startswith(("streamingvlm ", "make ", "python "))]
    named = [(" ".join(line.split()), True) for line in INLINE.findall(FENCED.sub("", GENERATED.sub("", text)))]
    return [*dict.fromkeys([*found, *named])]


COMMANDS = sorted({command for page in PAGES if "dev" not in page.parts for command in commands(page)})


def test_the_commands_are_found() -> None:
    readme = [line for line, _ in commands(ROOT / "README.md")]
    assert len([line for line in readme if line.startswith("streamingvlm ")]) >= 5
    assert any(line.startswith("make ") for line in readme)
    assert len([line for line, _ in COMMANDS if line.startswith("streamingvlm ")]) >= 30
    assert any(line.startswith("python scripts/") for line, _ in COMMANDS)


@pytest.mark.parametrize(("line", "named"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_command_is_one_that_there_is(line: str, named: bool) -> None:
    program, *arguments = shlex.split(line)
    if program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        check_python(arguments)
    else:
        parameters = parse(arguments, named)
        if parameters.get("policy"):
            make_policy(parameters["policy"])
        for value in parameters.values():
            if str(value).startswith("configs/"):
                assert (ROOT / str(value)).is_file()


def check_python(arguments: list[str]) -> None:
    """A script of this repository, a module, or code that can be compiled."""
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1])
    elif arguments[0] == "-c":
        compile(arguments[1], "command", "exec")
        for module in re.findall(r"from (\S+) import", arguments[1]):
            assert importlib.util.find_spec(module)
    else:
        assert (ROOT / arguments[0]).is_file()


def parse(arguments: list[str], named: bool = False) -> dict[str, Any]:
    """Find the command and parse its arguments as the command line would; what is wrong raises.

    A command that is only named in running text need not have all of its arguments.
    """
    command: Any = get_command(make_app())
    context = None
    while hasattr(command, "commands"):
        name, *arguments = arguments
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        command = command.commands[name]
    bare = named and not arguments
    context = command.make_context(command.name, list(arguments), parent=context, resilient_parsing=bare)
    parameters: dict[str, Any] = context.params
    return parameters


@pytest.mark.parametrize("wrong", ["watch", "watch a --wrong", "wach a", "bench soak --hours many", "eval arcade x"])
def test_a_wrong_command_would_be_noticed(wrong: str) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011 - typer brings its own copy of click in newer releases
        parse(wrong.split())
