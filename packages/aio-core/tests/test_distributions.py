"""What is installed, read without `importlib.metadata`: the same answers, and sooner."""

import subprocess
import sys
import zipfile
from importlib import metadata

import pytest

from durabletask_aio.core import distributions

GROUPS = ["durabletask.aio.integrations", "durabletask.aio.sandbox", "durabletask.aio.commands", "pytest11", "none"]


def install(folder, name, version, *, entry_points="", requires=()):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {each}" for each in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n\nA description\nVersion: 0\n", encoding="utf-8")
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["durabletask", "durabletask-aio-core", "Durabletask.Aio_Core", "pytest", "grpcio"])
def test_versions_and_requirements_are_those_of_importlib(name):
    assert distributions.version(name) == metadata.version(name)
    assert distributions.requires(name) == (metadata.requires(name) or [])


@pytest.mark.parametrize("group", GROUPS)
def test_entry_points_are_those_of_importlib(group):
    def facts(entries):
        return sorted((each.name, each.value, each.group, each.dist.name, each.dist.version) for each in entries)

    assert facts(distributions.entry_points(group=group)) == facts(metadata.entry_points(group=group))


def test_an_entry_point_loads_what_it_names(folder):
    install(
        folder, "acme", "1.0", entry_points="[other]\nx = json:dumps\n[some.group]\n# no\njoin = os:path.join [extra]\n"
    )
    (entry,) = distributions.entry_points(group="some.group")

    assert entry.load() is __import__("os").path.join
    assert (entry.name, entry.dist.name, entry.dist.version) == ("join", "acme", "1.0")


def test_what_is_not_installed_is_none():
    assert distributions.version("nothing-of-that-name") is None
    assert distributions.requires("nothing-of-that-name") == []


def test_the_first_on_the_path_counts(folder):
    install(folder, "durabletask", "99.0", requires=["acme>=1"])

    assert distributions.version("durabletask") == "99.0"
    assert distributions.requires("durabletask") == ["acme>=1"]


def test_a_folder_of_the_path_that_is_gone_is_skipped(monkeypatch):
    monkeypatch.syspath_prepend("/gone")
    assert distributions.version("durabletask") == metadata.version("durabletask")


def test_what_is_in_an_archive_is_found_by_importlib(tmp_path, monkeypatch):
    archive = tmp_path / "acme.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr(
            "acme-3.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: acme\nVersion: 3.0\nRequires-Dist: b\n"
        )
        made.writestr("acme-3.0.dist-info/entry_points.txt", "[some.group]\nx = json:dumps\n")
    monkeypatch.syspath_prepend(archive)

    assert distributions.version("acme") == "3.0"
    assert distributions.requires("acme") == ["b"]
    assert distributions.version("nothing-of-that-name") is None
    assert distributions.requires("nothing-of-that-name") == []
    assert [entry.name for entry in distributions.entry_points(group="some.group")] == ["x"]


PROGRAM = """
import sys, time
sys.path.insert(0, {folder!r})
{imports}
async def flow(ctx, value):
    return value

assert "importlib.metadata" not in sys.modules, "imported by the import"
worker = TaskHubGrpcWorker()
begin = time.process_time()
worker.add_orchestrator(flow)
print((time.process_time() - begin) * 1000)
assert "importlib.metadata" not in sys.modules, "imported by the registration"
"""

OURS = "from durabletask.aio.worker import TaskHubGrpcWorker"
UPSTREAMS = "import durabletask.aio, durabletask.aio.worker\nfrom durabletask.worker import TaskHubGrpcWorker"


@pytest.mark.slow
@pytest.mark.parametrize("imports", [OURS, UPSTREAMS], ids=["this project's class", "upstream's class"])
def test_the_first_registration_takes_less_than_ten_milliseconds_of_cpu(tmp_path, imports):
    """In an environment with 300 distributions, each with entry points.  The best of several fresh interpreters."""
    for number in range(300):
        install(
            tmp_path,
            f"dist_{number}",
            "1.0",
            requires=[f"other{each}>=1" for each in range(20)],
            entry_points="[console_scripts]\n" + "".join(f"tool{each} = json:dumps\n" for each in range(5)),
        )
    rounds = []
    for _ in range(10):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(folder=str(tmp_path), imports=imports)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not done.stderr, done.stderr
        rounds.append(float(done.stdout))
        if rounds[-1] < 10:
            return
    pytest.fail(f"milliseconds, round by round: {rounds}")
