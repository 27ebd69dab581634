"""Pages for those who work on the project: what they say of the tree, and the files and names in them, are true."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
from pathlib import Path

import yaml

import streamer

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "streamer"
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True)
    assert listed.returncode == 0, listed.stderr
    return [ROOT / name for name in listed.stdout.decode().splitlines()]


def first_sentence(module: Path) -> str:
    """As it reads in Markdown."""
    docstring = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    (sentence,) = re.findall(r"\A.*?(?:\.(?=\s|\Z)|\Z)", docstring, re.DOTALL)[:1]
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", " ".join(sentence.split()).replace("``", "`"))


def test_the_table_of_packages_is_the_tree() -> None:
    table = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", ARCHITECTURE, re.MULTILINE))
    modules = {str(path.parent.relative_to(PACKAGE)): path for path in PACKAGE.glob("*/**/__init__.py")}
    assert table == {name: first_sentence(module) for name, module in modules.items()}


def importers(*libraries: str) -> set[str]:
    """Packages that import one of the libraries."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            if {name.partition(".")[0] for name in names} & set(libraries):
                found.add(path.relative_to(PACKAGE).parts[0])
    return found


def test_faust_and_rich_are_imported_where_the_page_says() -> None:
    ((faust, rich),) = re.findall(r"Only (.*?) import Faust; only (.*?) import\s+rich", ARCHITECTURE, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", faust)) == importers("faust", "mode")
    assert set(re.findall(r"`(\w+)`", rich)) == importers("rich")


def test_the_api_is_on_the_page() -> None:
    section = ARCHITECTURE[ARCHITECTURE.index("## What is API") :]
    named = set(re.findall(r"`(?:streamer\.)?(\w+)`", section))
    assert set(streamer.__all__) | set(streamer.model.__all__) <= named


def test_every_link_of_every_page_leads_to_a_file() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages()
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text("utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_index_leads_to_every_page() -> None:
    linked = {(ROOT / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", text("docs/README.md"))}
    wanted = {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions"}
    wanted |= {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")}
    assert wanted - linked == {ROOT / "docs" / "README.md"}


def text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def test_the_files_that_contributing_names_exist() -> None:
    places = (ROOT, PACKAGE, PACKAGE / "model", PACKAGE / "feeds")
    named = re.findall(r"`([\w.-]+/[\w./-]*)`", CONTRIBUTING)
    assert len(named) > 20
    assert [name for name in named if "NAME" not in name and not any((place / name).exists() for place in places)] == []


def test_the_names_that_contributing_tells_to_use_are_in_the_code() -> None:
    code = "\n".join(
        path.read_text("utf-8") for part in ("streamer", "bench", "tests/unit") for path in (ROOT / part).rglob("*.py")
    )
    words = set(re.findall(r"\w+", code))
    recipes = CONTRIBUTING[CONTRIBUTING.index("## Words") :]
    named = {
        name for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(.*?\))?`", recipes) if not name.endswith((".py", ".md"))
    }
    assert {"JSON_EXAMPLES", "Part.notes", "begin"} <= named
    files = {"model.toml", "pyproject.toml", "rules.yaml", "rules.test.yaml"}
    assert {name for name in named - files if not set(name.split(".")) <= words} == set()


def test_the_targets_of_make_that_contributing_lists_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", CONTRIBUTING, re.MULTILINE))
    assert {"check", "test"} <= named <= targets


def test_hooks_before_a_commit_run_what_make_check_runs() -> None:
    recipe = re.findall(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[0].replace("@$(BIN)/", "")
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    run = {hook["entry"].removeprefix(".venv/bin/") for hook in hooks}
    checked = {re.sub(r" \.$", "", line.strip()) for line in recipe.splitlines()}
    assert run - {"git diff --cached --check"} == checked - {"pytest -q tests/typing"}
    assert hooks[-1]["id"] == "mypy", "the slowest comes last"


def test_the_changelog_has_this_version_and_its_date() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == streamer.__version__
    assert all(date for _, date in headings[1:])


def test_the_page_on_releases_names_the_distribution_and_the_place_of_the_version() -> None:
    page = text("docs/release.md")
    (name,) = re.findall(r'^name = "([\w-]+)"', text("pyproject.toml"), re.MULTILINE)
    assert f"`{name}`" in page
    assert "`streamer/__init__.py`" in page
    assert f'__version__ = "{streamer.__version__}"' in inspect.getsource(streamer)
