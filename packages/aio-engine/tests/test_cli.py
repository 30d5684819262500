"""The commands, each in a process of its own, on real files and a running engine."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from durabletask.aio.engine import Engine

from durabletask_aio.engine import cli
from durabletask_aio.engine.schema import VERSION


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "durabletask_aio", *map(str, arguments)]


def run(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A file with twenty completed instances and one that waits for an event."""

    async def order(ctx, number):
        return number

    async def waits(ctx, _):
        return await ctx.wait_for_external_event("go")

    path = tmp_path / "orders.db"
    with Engine(path, durability="os") as engine, engine.worker() as worker:
        worker.add_orchestrator(order)
        worker.add_orchestrator(waits)
        worker.start()
        client = engine.client()
        ids = [client.schedule_new_orchestration(order, input=n, instance_id=f"o/{n:02}") for n in range(20)]
        for each in ids:
            assert client.wait_for_orchestration_completion(each, timeout=30) is not None
        client.wait_for_orchestration_start(client.schedule_new_orchestration(waits, instance_id="w"), timeout=30)
    return path


@pytest.fixture
def server(database: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        command("serve", "--db", database, "--port", 0, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())["address"]
    yield process, address
    process.kill()
    process.wait()
    process.stdout.close()


def test_serve_says_what_it_does_and_ends_quietly(database: Path) -> None:
    process = subprocess.Popen(
        command("serve", "--db", database, "--port", 0), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)

    assert process.returncode == 0
    assert lines[0].startswith(f"Engine on {database} (durability fsync), listening on localhost:")
    assert lines[1] == "Holds 21 instances; continues with 0 turns, 0 activities and 0 entities.\n"
    assert "Traceback" not in errors
    assert "Engine stopped" in errors


def test_the_log_of_serve_is_that_of_the_engine(database: Path) -> None:
    pytest.importorskip("uvicorn", reason="the page needs the extra 'ui'")
    arguments = command("serve", "--db", database, "--port", 0, "--ui-port", 0)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Engine on")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert [line.split(" INFO ")[1].partition(":")[0] for line in errors.splitlines()] == ["durabletask.aio.engine"] * 2


def test_a_command_for_a_file_in_use_says_how_to_ask_its_engine(
    database: Path, server: tuple[subprocess.Popen[str], str]
) -> None:
    code, _, errors = run("purge", "--older-than", "30d", "--db", database)

    assert code == 2
    assert "is in use by the engine of process" in errors
    assert errors.endswith("Without --db, the command asks a running engine: --address, by default localhost:4001\n")


def test_a_file_in_use_is_refused_with_the_process(database: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = server
    code, _, errors = run("serve", "--db", database, "--port", 0)

    assert code == 2
    assert f"in use by the engine of process {process.pid}" in errors


def test_a_file_is_waited_for(database: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = server
    waiting = subprocess.Popen(
        command("serve", "--db", database, "--port", 0, "--wait", 30, "--json"), stdout=subprocess.PIPE, text=True
    )
    process.send_signal(signal.SIGTERM)
    assert waiting.stdout is not None
    assert json.loads(waiting.stdout.readline())["port"]
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(30) == 0
    waiting.stdout.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database, whatever its name" * 10, "is not a database"),
        (None, "is a database of another program"),
        (VERSION + 1, f"schema {VERSION + 1}; this one knows up to {VERSION}"),
    ],
    ids=["text", "foreign", "newer"],
)
def test_files_that_cannot_be_used(tmp_path: Path, content: bytes | int | None, message: str) -> None:
    path = tmp_path / "odd.db"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE theirs (a)")
        other.close()
    else:
        Engine(path).start().stop()
        with sqlite3.connect(path) as newer:
            newer.execute(f"PRAGMA user_version={content}")
        newer.close()
    before = path.read_bytes()
    code, _, errors = run("serve", "--db", path, "--port", 0)

    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert path.read_bytes() == before


def test_a_damaged_file_is_refused(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 6] = b"\xff" * (4096 * 4)
    database.write_bytes(content)
    code, _, errors = run("serve", "--db", database, "--port", 0)

    assert code == 2
    assert "is damaged" in errors
    assert "Traceback" not in errors


def test_another_address_takes_tls_or_a_word(tmp_path: Path) -> None:
    code, _, errors = run("serve", "--db", tmp_path / "a.db", "--host", "0.0.0.0", "--port", 0)

    assert code == 2
    assert "0.0.0.0 can be reached by others" in errors


def test_backup_of_a_running_engine(tmp_path: Path, server: tuple[subprocess.Popen[str], str]) -> None:
    _, address = server
    target = tmp_path / "copy.db"
    code, output, _ = run("backup", target, "--address", address, "--json")

    assert code == 0
    assert json.loads(output) == {"target": str(target), "bytes": target.stat().st_size}
    assert run("backup", target, "--address", address)[0] == 2  # it exists
    with Engine(target) as copy:
        assert len(copy.client().get_all_orchestration_states()) == 21


def test_purge_and_vacuum(database: Path) -> None:
    assert run("purge", "--older-than", "1h", "--db", database)[1] == "0 instances purged.\n"
    assert run("purge", "--older-than", "0s", "--db", database, "--dry-run")[1] == "20 instances would be purged.\n"
    code, output, _ = run("purge", "--older-than", "0s", "--db", database, "--vacuum", "--json")

    assert code == 0
    assert json.loads(output)["count"] == 20
    with Engine(database) as engine:
        assert [each.instance_id for each in engine.client().get_all_orchestration_states()] == ["w"]


def test_retention_purges_and_stays(database: Path) -> None:
    assert run("retention", "1s", "--db", database)[1] == "Instances are purged 1s after their end.\n"
    with Engine(database) as engine:
        client = engine.management()
        assert client.statistics().retention.age.seconds == 1
        engine.kernel.wake()
    assert run("retention", "off", "--db", database)[1] == "Instances stay.\n"


def test_export_writes_what_replay_reads(tmp_path: Path, database: Path) -> None:
    folder = tmp_path / "histories"
    code, output, _ = run("export", folder, "--db", database, "--name", "order", "--limit", 5)

    assert (code, output) == (0, f"5 histories in {folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == [f"o%2F{number}.json" for number in range(15, 20)]
    document = json.loads((folder / "o%2F19.json").read_text(encoding="utf-8"))
    assert (document["format"], document["version"], document["instance_id"]) == ("durabletask-history", 1, "o/19")
    assert document["events"][1]["name"] == "order"
    history = pytest.importorskip("durabletask.aio.testing").History.load(folder / "o%2F19.json")
    assert len(history) == len(document["events"])


def test_no_engine_is_an_error_and_no_traceback() -> None:
    code, _, errors = run("purge", "--older-than", "1h", "--address", "localhost:1")

    assert code == 2
    assert errors.startswith("error: no engine answers on localhost:1")
    assert "Traceback" not in errors


@pytest.mark.parametrize("text", ["1", "h", "1y", "-1h", "1.5h"])
def test_ages_that_are_none(text: str) -> None:
    result = CliRunner().invoke(cli.purge, ["--older-than", text])

    assert result.exit_code == 2
    assert "is not a duration such as" in result.output
