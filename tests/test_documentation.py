"""What the documents say is true: links, commands, codes, metrics and generated files."""

import re
from pathlib import Path

import click
import yaml
from click.testing import CliRunner

from gateway import __version__
from gateway.cli import main
from gateway.errors import ErrorCode
from tests import documents
from tests.reference.causes import PAGES as PAGES_OF_ERRORS
from tests.support.rows import every_row

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for top in sorted(ROOT.iterdir())
    if not top.name.startswith(".")
    for page in (sorted(top.rglob("*.md")) if top.is_dir() else [top])
    if page.suffix == ".md" or page.name == "llms.txt"
]


def test_links_lead_somewhere() -> None:
    """
    Every relative link of a page names a file or folder that exists.
    """
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text())
        if not target.startswith(("http:", "https:"))
    ]

    assert links
    assert [(page, target) for page, target in links if not (page.parent / target).exists()] == []


def test_every_error_code_is_in_the_readme() -> None:
    """
    A reader who gets one of our errors finds it, with its status, in the README.
    """
    table = (ROOT / "README.md").read_text().split("## Troubleshooting")[1]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    for code in ErrorCode:
        if code.status:
            named = [row for row in rows if re.search(rf"[`.]{code.value.name}`", row)]
            assert len(named) == 1, code
            assert str(code.status) in named[0].split("|")[1], code


def test_every_error_code_has_a_page_that_its_message_names() -> None:
    """
    `error_msg` ends with the name of a page that says causes and remedies.
    """
    assert set(PAGES_OF_ERRORS) == set(ErrorCode)
    for code, page in PAGES_OF_ERRORS.items():
        name = code.value.sentence.split("See docs: ")[1]
        text = (ROOT / "config" / "errors" / f"{name}.md").read_text()
        assert f"# {name}\n" in text
        assert code.value.summary.replace("<", "&lt;") in text
        assert page.causes, code
        assert page.remedies, code


def test_every_family_of_metrics_is_in_the_reference() -> None:
    """
    The reference has each family that the code makes, also what is exported only when it is used.
    """
    page = (ROOT / "config" / "metrics.md").read_text()
    made = re.compile(
        r"\b(counter|gauge|histogram|info)(?:MetricFamily)?\(\s*\"(gateway_\w+)\"", re.IGNORECASE
    )
    ending = {"counter": "_total", "info": "_info"}
    found = 0
    for path in (ROOT / "gateway").rglob("*.py"):
        for kind, name in made.findall(path.read_text()):
            found += 1
            assert f"| `{name}{ending.get(kind.lower(), '')}` |" in page, f"{path}: {name}"
    assert found > 30


def test_generated_documents_are_up_to_date() -> None:
    """
    The references, the JSON Schema and the dashboard are what the code says.
    """
    assert not list(documents.differences())


def test_every_command_explains_itself() -> None:
    """
    `--help` of each command shows examples, and each command is in the group's list.
    """
    with every_row() as trying:
        for name in main.list_commands(click.Context(main)):
            with trying(name):
                said = CliRunner().invoke(main, [name, "--help"], prog_name="modelarts-gateway")
                assert said.exit_code == 0
                assert "Examples:" in said.output
                assert f"modelarts-gateway {name}" in said.output


def test_make_targets_named_in_the_readme_exist() -> None:
    """
    A newcomer can type what the README tells to type.
    """
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))

    assert named <= targets


def test_options_named_in_the_readme_exist() -> None:
    """
    Each `--option` after one of our commands is one that the command takes.
    """
    context = click.Context(main)
    text = (ROOT / "README.md").read_text()
    found = re.findall(r"modelarts-gateway ([a-z]+)((?: --[a-z-]+)+)", text)
    for command, options in found:
        known = main.get_command(context, command)
        assert known is not None
        names = {option for parameter in known.params for option in parameter.opts}
        assert set(options.split()) <= names, command


def test_the_five_lines_for_kubernetes_are_a_native_sidecar_of_this_version() -> None:
    """
    What the README shows for a pod is YAML, five lines, and names this version's image.
    """
    text = (ROOT / "README.md").read_text()
    [block] = re.findall(r"```yaml\n(initContainers:.*?)```", text, re.DOTALL)
    [container] = yaml.safe_load(block)["initContainers"]

    assert len(block.splitlines()) == 5
    assert container["restartPolicy"] == "Always"
    assert container["image"] == f"modelarts-gateway:{__version__}"
    assert f"--tag modelarts-gateway:{__version__} " in text


def test_no_page_or_source_names_this_machine() -> None:
    """
    Nothing in the project depends on, or tells of, the place where it was written.
    """
    for path in [*PAGES, *sorted((ROOT / "gateway").rglob("*.py"))]:
        assert not re.search(r"/(work|tmp|home|root)/[a-z]", path.read_text()), path


def test_commands_and_files_that_pages_tell_to_type_exist() -> None:
    """
    What stands in a page's code for shells names commands, targets and files that there are.
    """
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(main.list_commands(click.Context(main)))
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.DOTALL)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        typed = "\n".join([*blocks, *re.findall(r"`([^`]+)`", prose)])
        for command in re.findall(r"\bmodelarts-gateway ([a-z]+)\b", typed):
            assert command in commands, f"{page}: {command}"
        for target in re.findall(r"\bmake ([a-z-]+)\b", typed):
            assert target in targets, f"{page}: {target}"
        for file in re.findall(r"\b((?:deploy|config)/[\w./-]+\w)", typed):
            assert (ROOT / file).exists(), f"{page}: {file}"


def test_everything_that_is_deployed_has_this_version() -> None:
    """
    Image tags in manifests and compose file, and the chart, name the version of this code.
    """
    files = [
        path
        for path in (ROOT / "deploy").rglob("*.yaml")
        if "image: modelarts-gateway" in path.read_text()
    ]
    assert len(files) >= 4
    for path in files:
        for tag in re.findall(r"image: modelarts-gateway:(\S+)", path.read_text()):
            assert tag == __version__, path
    chart = (ROOT / "deploy" / "helm" / "modelarts-gateway" / "Chart.yaml").read_text()
    assert re.search(rf"^appVersion: {re.escape(__version__)}\b", chart, re.MULTILINE)
