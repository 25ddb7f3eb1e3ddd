"""The house rules: what imports what, what is public, what the tree may hold."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, version
from pathlib import Path
from types import ModuleType

import pytest

import longtake
from longtake.cli import VERBS, main

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(module.name for module in pkgutil.iter_modules(longtake.__path__, "longtake.") if module.ispkg)
HEAVY = {"torch", "numpy", "diffusers", "transformers", "peft", "av", "mujoco"}


def tracked_files():
    """Every file that git knows, or would know after `git add`; the whole tree where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in files if path.is_file()]


def loaded_after(code):
    """The top-level packages that a fresh interpreter has loaded after running `code`."""
    report = (
        "import json, sys; sys.stdout.write('\\n' + json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_importing_longtake_loads_no_torch():
    assert not loaded_after("import longtake") & HEAVY


def test_schedules_and_plans_load_no_torch_and_no_numpy():
    assert not loaded_after("import longtake.schedule, longtake.plan") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in sorted(VERBS))], ids=" ".join)
def test_help_loads_no_torch(arguments):
    code = f"""
import sys
from longtake.cli import main
try:
    code = main({arguments!r})
except SystemExit as stop:
    code = stop.code
assert not code, code
"""
    assert not loaded_after(code) & HEAVY


def test_every_layer_keeps_its_place():
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_cpu_build_of_torch_brings_no_nvidia_package():
    if not version("torch").endswith("+cpu"):
        pytest.skip("this environment has a torch that may want its accelerator's packages")
    installed = {found.name.lower() for found in distributions()}
    assert not {name for name in installed if name.startswith(("nvidia-", "cuda-", "triton"))}


@pytest.mark.parametrize("package", ["longtake", *PACKAGES])
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    assert module.__doc__, f"{package} says nothing about itself"
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if callable(value) and str(getattr(value, "__module__", "")).startswith("longtake"):
            assert value.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_exports_each_name_that_it_gathers(package):
    module = importlib.import_module(package)
    exported = getattr(module, "__all__", ())
    gathered = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "")).startswith(f"{package}.")
    }
    assert gathered <= set(exported)
    assert len(exported) == len(set(exported))


def test_the_names_to_begin_with_stand_in_the_reference():
    page = (ROOT / "docs" / "reference" / "python.md").read_text()
    shown = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)", page, flags=re.MULTILINE)}
    assert set(longtake.__all__) - {"LongtakeError"} <= shown
    assert "errors" in shown


def test_the_changelog_starts_with_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    releases = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert releases[0] == project["version"] == version("longtake")


def test_the_readme_names_the_two_commands_and_they_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for command in ("make demo", "make test"):
        assert command in readme
        assert re.search(rf"^{command.split()[1]}:", makefile, flags=re.MULTILINE)


def test_links_between_the_pages_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_files_that_the_pages_name_exist():
    roots = [ROOT, ROOT / "src" / "longtake"]
    tops = {"src", "tests", "benchmarks", "examples", *(package.partition(".")[2] for package in PACKAGES)}
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(r"`(\w+/[\w./-]*)`", page.read_text())
        if name.partition("/")[0] in tops and not any((root / name).exists() for root in roots)
    ]
    assert not missing


def test_the_tree_speaks_of_no_machine_of_its_authors():
    # Assembled here, so that this file does not hold them.
    private = ["/" + "work/", "file:" + "///", "/" + "opt/", "/" + "root/"]
    found = []
    for path in tracked_files():
        text = path.read_bytes()
        if b"\0" in text:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in private if word.encode() in text]
    assert not found


def test_the_tree_stays_small():
    assert sum(path.stat().st_size for path in tracked_files()) < 55 * 2**20


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_option_of_a_verb_stands_in_its_reference(verb, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert not stop.value.code
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    (text,) = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith(f"{verb}\n")]
    assert {option for option in options if not option.startswith("--no-")} <= set(re.findall(r"--[a-z][\w-]*", text))


def test_nothing_is_imported_that_one_kind_of_system_lacks():
    """What only some systems have is imported where it is used, on these."""
    posix = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert posix.isdisjoint(names), path
