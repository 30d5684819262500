"""The support for tests on a sidecar: where the binary comes from, ports, and processes that do not start."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import dapr_binary
import pytest
from dapr_cluster import PORT_BLOCKS, Cluster, Ports, ProcessEndedError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Dapr's processes are started on Linux and macOS only")


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the Go module, without binaries."""
    copy = tmp_path / "sidecar"
    shutil.copytree(dapr_binary.SOURCES, copy, ignore=shutil.ignore_patterns("build"))
    monkeypatch.setattr(dapr_binary, "SOURCES", copy)
    monkeypatch.setattr(dapr_binary, "CACHE", copy / "build")
    return copy


def program(path: Path, text: str) -> Path:
    """Write an executable script of the shell."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


class TestTheBinary:
    @pytest.mark.parametrize("name", ["go.mod", "go.sum", "main.go", "new.go"])
    def test_of_other_sources_is_another_one(self, sources: Path, name: str) -> None:
        before = dapr_binary.path()
        with (sources / name).open("a", encoding="utf-8") as file:
            file.write("\n// changed\n")
        assert dapr_binary.path() != before

    def test_is_built_once_and_replaces_older_ones(
        self, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A `go` that writes its arguments to the file after -o, and counts its calls.
        program(
            tmp_path / "bin" / "go", f'echo >>{tmp_path}/calls; while [ "$1" != -o ]; do shift; done; echo "$@" >"$2"'
        )
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        old = sources / "build" / "0123456789abcdef" / "dapr"
        program(old, "")

        built = dapr_binary.build()
        assert dapr_binary.build() == built

        assert built.read_text(encoding="utf-8").startswith("-o ")
        assert list((sources / "build").rglob("*")) == [built.parent, built]
        assert (tmp_path / "calls").read_text(encoding="utf-8") == "\n"

    def test_that_does_not_build_is_an_error_and_leaves_nothing(
        self, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(tmp_path / "bin" / "go", "exit 3")
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        with pytest.raises(dapr_binary.BuildError, match=r"Go could not build Dapr's sidecar, which needs Go 1\.\d+"):
            dapr_binary.build()
        assert not dapr_binary.path().exists()

    def test_without_go_is_an_error_that_says_what_to_install(
        self, sources: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", "")
        with pytest.raises(dapr_binary.BuildError, match=r"There is no Go on PATH\. Install Go 1\.\d+\.\d+ or newer"):
            dapr_binary.build()


class TestPorts:
    def test_two_clusters_have_different_ones_below_those_of_clients(self) -> None:
        first, second = Ports(), Ports()
        try:
            assert first.first != second.first
            assert {first.first, second.first} <= set(PORT_BLOCKS)
        finally:
            first.release()
            second.release()

    def test_one_that_another_program_has_is_avoided(self) -> None:
        ports = Ports()
        ports.release()
        with socket.create_server(("127.0.0.1", ports[3])):
            others = Ports()
            others.release()
        assert others.first != ports.first


class TestAProcess:
    def test_that_ends_while_it_starts_is_an_error_with_its_log(self, tmp_path: Path) -> None:
        binary = program(tmp_path / "dapr", 'echo "cannot $1"; exit 5')
        cluster = Cluster(tmp_path / "cluster", binary)
        expected = r"(?s)placement: ended with status 5; its log ends with:\ncannot placement"
        with pytest.raises(ProcessEndedError, match=expected), cluster.running():
            pytest.fail("is running")

    def test_that_runs_is_not_started_twice(self, tmp_path: Path) -> None:
        cluster = Cluster(tmp_path / "cluster", program(tmp_path / "dapr", "exec sleep 60"))
        try:
            cluster.start_placement(wait=False)
            with pytest.raises(ValueError, match="placement runs already"):
                cluster.start_placement(wait=False)
        finally:
            cluster.stop()

    def test_of_a_replica_that_has_no_ports_is_refused(self, tmp_path: Path) -> None:
        cluster = Cluster(tmp_path / "cluster", tmp_path / "dapr")
        with pytest.raises(ValueError, match="replica must be from 0 to 3, not 4"):
            cluster.grpc_port(4)
        cluster.stop()
