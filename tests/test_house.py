"""What the pages say is true: their code runs, their commands exist, their lists are whole."""

import ast
import contextlib
import doctest
import io
import itertools
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import whyglass
from whyglass.cli.main import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def blocks(page):
    """Language and text of each fenced block, indentation removed."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        (kind, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, kind, text in found
    ]


def commands(program):
    """(page, words) of each line of a console block that calls the program."""
    return [
        (str(page.relative_to(ROOT)), shlex.split(line, comments=True))
        for page in PAGES
        for kind, text in blocks(page)
        if kind == "console"
        for line in text.splitlines()
        if line.startswith(program + " ")
    ]


WITH_CODE = [page for page in PAGES if any(kind == "python" for kind, _ in blocks(page))]


@pytest.mark.parametrize("page", WITH_CODE, ids=names(WITH_CODE))
def test_the_code_of_a_page_prints_what_the_page_says(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    printed = ""
    for kind, text in [*blocks(page), ("end", "")]:
        if kind == "text":
            same = doctest.OutputChecker().check_output(text, printed, doctest.ELLIPSIS)
            assert same, f"{page.name} says\n{text}\nand the code prints\n{printed}"
            printed = ""
        elif kind in ("python", "end"):
            assert not printed, f"{page.name} does not show what its code prints:\n{printed}"
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, page.name, "exec"), module.__dict__)
            printed = out.getvalue()


def test_pages_with_code_are_found():
    assert {"README.md", "docs/how-to/add-a-method.md"} <= set(names(WITH_CODE))


@pytest.mark.parametrize(("page", "words"), commands("make"))
def test_a_make_command_on_a_page_has_its_target(page, words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words[1] in targets


@pytest.mark.parametrize(("page", "words"), commands("whyglass"))
def test_a_whyglass_command_on_a_page_is_one_that_is_understood(page, words):
    command = cli.commands[words[1]]
    context = click.Context(command, info_name=words[1])
    # Parsing alone: an option that is not there, or a value of the wrong kind, is a UsageError.
    command.parse_args(context, words[2:])


def test_the_readme_names_every_method():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in whyglass.METHODS if f"`{name}`" not in text] == []


def test_every_public_name_is_in_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    methods = {kind.__name__ for kind in whyglass.METHODS.values()}  # a directive lists these
    errors = {n for n in whyglass.__all__ if n in vars(whyglass.core.errors)}  # automodule does
    rest = set(whyglass.__all__) - methods - errors - {"METHODS"}
    assert (
        sorted(
            name
            for name in rest
            if f":: whyglass.{name}\n" not in pages and f":: whyglass.extend.{name}\n" not in pages
        )
        == []
    )


def test_every_check_has_a_section_that_says_what_it_means():
    calls = [
        node
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Check" and node.args
    ]
    checks = {call.args[0].value for call in calls}
    page = (ROOT / "docs/explanation/what-the-checks-mean.md").read_text(encoding="utf-8")
    assert len(checks) > 10
    assert checks <= set(re.findall(r"^## (.*)$", page, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_between_pages_lead_somewhere(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_constraints_pin_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if "==" in line)
    }
    extras = itertools.chain(*project["optional-dependencies"].values())
    asked = [*project["dependencies"], *extras]
    requirements = [Requirement(text) for text in asked]
    assert len(requirements) > 10
    loose = [
        r.name
        for r in requirements
        if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))
    ]
    assert loose == []


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {whyglass.__version__}\n" in citation
    assert f"\n## [{whyglass.__version__}]" in changes


def test_importing_whyglass_imports_no_view_and_nothing_optional():
    heavy = (
        "matplotlib jinja2 click PIL skimage sklearn onnx onnxruntime shap captum "
        "whyglass.views.figures whyglass.views.notebook whyglass.views.report"
    )
    code = f"import sys, whyglass; print([m for m in {heavy.split()} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
