"""`durabletask-aio new`: a project that runs and has tests."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

import click

from durabletask_aio.core.command_line import CommandError, json_option, printable, write_json
from durabletask_aio.testing.package_data import read_data

_FILES = {
    "README.md": "README.md.template",
    "pyproject.toml": "pyproject.toml.template",
    ".gitignore": "gitignore.template",
    "workflows.py": "workflows.py.template",
    "main.py": "main.py.template",
    "test_workflows.py": "test_workflows.py.template",
}
"""By the name of a file in the new project: the file in the folder `data/new` that it is made from."""

_EPILOG = """\
\b
examples:
  durabletask-aio new my_app
  durabletask-aio new services/orders

The folder is made, and must be new or empty. Its last part is the name of the project.
"""


@click.command("new", short_help="Make a project: a workflow, a program that runs it, and its tests.", epilog=_EPILOG)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@json_option
def new(folder: Path, as_json: bool) -> None:
    """Make a project in FOLDER: a workflow with activities, a program that runs it on a file, and its tests."""
    name = folder.resolve().name
    module = name.replace("-", "_")
    if not module.isidentifier() or not module.isascii() or keyword.iskeyword(module):
        raise CommandError(f"{name!r} cannot be the name of a project: use letters, digits and '_', as in my_app")
    if folder.exists() and any(folder.iterdir()):
        raise CommandError(f"{folder} is not empty")
    values = {"name": module, "distribution": re.sub(r"[-_]+", "-", name).strip("-").lower()}
    texts = {path: _filled(read_data(f"new/{template}"), values) for path, template in _FILES.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (folder / path).write_text(text, encoding="utf-8")
    if as_json:
        write_json({"folder": str(folder), "files": list(texts)})
        return
    shown = printable(str(folder))
    click.echo(f"Made {shown} with {', '.join(texts)}.\n")
    click.echo(f"  cd {shown}\n  python main.py order-1 5    # kill it, and run it again: it continues\n  pytest")


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text
