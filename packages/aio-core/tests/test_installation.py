"""The checks of what is installed, at `import durabletask.aio` and at the first registration."""

import logging
import sys
import threading
import time

import durabletask
import pytest
from durabletask.aio import as_orchestrator
from packaging.requirements import Requirement

import durabletask_aio.core
from durabletask_aio import families
from durabletask_aio.core import _upstream, distributions, installation


@pytest.fixture
def versions(monkeypatch):
    """Pretend that exactly these distributions are installed, in these versions."""
    installed = {"durabletask": "1.12.0", "durabletask-aio-core": "0.1.0"}

    monkeypatch.setattr(distributions, "version", installed.get)
    monkeypatch.setattr(distributions, "requires", lambda name: ["packaging>=22", "durabletask>=1.12,<2"])
    installation._verify_once.cache_clear()
    yield installed
    installation._verify_once.cache_clear()


def test_what_fits_is_silent(versions):
    installation.verify_installation()


def test_what_is_installed_here_fits():
    installation.verify_installation()


@pytest.mark.parametrize("found", ["1.11.0", "2.0.0", "0.5"])
def test_a_version_out_of_range_names_both_and_the_line_to_install(versions, found):
    versions["durabletask"] = found
    with pytest.raises(ImportError) as caught:
        installation.verify_installation()
    wanted = Requirement("durabletask>=1.12,<2")
    assert str(caught.value) == (
        f"durabletask-aio-core 0.1.0 works with {wanted}, and {found} is installed\n  pip install '{wanted}'"
    )


UNTESTED = f"{families.MICROSOFT.last_tested[0]}.{families.MICROSOFT.last_tested[1] + 1}"


@pytest.mark.parametrize("found", [f"{UNTESTED}.0", "1.99", f"{UNTESTED}.0rc1", f"{UNTESTED}.0.dev3"])
def test_a_minor_version_above_the_tested_ones_is_accepted_with_one_warning(versions, caplog, found):
    versions["durabletask"] = found
    for _ in range(3):
        installation.verify_installation()
    tested = "{}.{}".format(*families.MICROSOFT.last_tested)
    warning = (
        f"durabletask {found} is newer than {tested}, the last minor version that durabletask-aio-core 0.1.0 was "
        "tested with; all private names of it that the core needs are there"
    )
    assert caplog.record_tuples == [("durabletask.aio", logging.WARNING, warning)]


def test_threads_that_register_at_the_same_time_cause_one_warning(versions, caplog, monkeypatch):
    versions["durabletask"] = f"{UNTESTED}.0"
    barrier = threading.Barrier(4)
    self_check = _upstream.self_check

    def slow_self_check():
        time.sleep(0.05)
        return self_check()

    def register():
        barrier.wait()
        installation.verify_installation()

    monkeypatch.setattr(_upstream, "self_check", slow_self_check)
    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caplog.records) == 1


@pytest.mark.parametrize("found", ["{}.{}.0", "{}.{}.7", "{}.{}", "{}.{}.1.post1"])
def test_a_tested_minor_version_causes_no_warning(versions, caplog, found):
    versions["durabletask"] = found.format(*families.MICROSOFT.last_tested)
    installation.verify_installation()
    assert caplog.records == []


def test_above_the_tested_versions_a_missing_name_is_an_error_with_both_versions(versions, caplog, monkeypatch):
    versions["durabletask"] = f"{UNTESTED}.0"
    monkeypatch.setattr(_upstream, "self_check", lambda: "durabletask has changed: Task._parents is gone")
    for _ in range(2):
        with pytest.raises(ImportError) as caught:
            installation.verify_installation()
        assert str(caught.value) == (
            "durabletask has changed: Task._parents is gone "
            f"(found: durabletask {UNTESTED}.0, durabletask-aio-core 0.1.0)"
        )
    assert caplog.records == []


def test_a_module_of_upstream_that_is_gone_is_an_error_with_both_versions(versions, monkeypatch):
    def self_check():
        raise ModuleNotFoundError("No module named 'durabletask.internal'")

    versions["durabletask"] = f"{UNTESTED}.0"
    monkeypatch.setattr(_upstream, "self_check", self_check)
    with pytest.raises(ImportError) as caught:
        installation.quick_check()
    assert str(caught.value) == (
        "durabletask-aio-core cannot use the installed durabletask: No module named 'durabletask.internal' "
        f"(found: durabletask {UNTESTED}.0, durabletask-aio-core 0.1.0)"
    )


def test_without_upstream_the_line_to_install_is_given(versions):
    del versions["durabletask"]
    with pytest.raises(ImportError) as caught:
        installation.verify_installation()
    assert str(caught.value) == (
        "durabletask.aio needs Microsoft's durabletask, which is not installed\n  pip install durabletask"
    )


def test_a_distribution_that_takes_upstreams_place_is_named_with_the_way_out(versions):
    versions["durabletask-dapr"] = "0.2"
    with pytest.raises(ImportError) as caught:
        installation.verify_installation()
    assert str(caught.value) == (
        "durabletask-dapr is installed; it puts a 'durabletask' package of its own in the place of Microsoft's, which "
        "durabletask-aio-core extends\n"
        "  pip uninstall durabletask-dapr\n"
        "  pip install --force-reinstall --no-deps durabletask durabletask-aio-core"
    )


def test_a_source_tree_that_nobody_installed_states_no_range(versions, monkeypatch):
    monkeypatch.setattr(distributions, "requires", lambda name: [])
    versions["durabletask"] = "99.0"
    installation.verify_installation()


def test_an_upstream_that_has_changed_under_us_is_an_import_error(versions, monkeypatch):
    monkeypatch.setattr(
        _upstream, "self_check", lambda: "durabletask has changed under durabletask-aio-core: x is gone"
    )
    with pytest.raises(ImportError) as caught:
        installation.verify_installation()
    assert str(caught.value) == (
        "durabletask has changed under durabletask-aio-core: x is gone "
        "(found: durabletask 1.12.0, durabletask-aio-core 0.1.0)"
    )


def test_the_quick_check_of_what_fits_reads_no_metadata(versions):
    del versions["durabletask"]
    installation.quick_check()


def test_the_quick_check_of_traces_of_a_conflicting_distribution_verifies(versions, tmp_path, monkeypatch):
    (tmp_path / "durabletask_dapr-0.2.dist-info").mkdir()
    monkeypatch.setattr(durabletask, "__path__", ["beside an archive.zip/durabletask", str(tmp_path / "durabletask")])
    installation.quick_check()  # the metadata says that it is not installed

    versions["durabletask-dapr"] = "0.2"
    installation._verify_once.cache_clear()
    with pytest.raises(ImportError, match="pip uninstall durabletask-dapr"):
        installation.quick_check()


def test_the_quick_check_of_an_upstream_that_cannot_be_imported_verifies(versions, monkeypatch):
    versions["durabletask"] = "1.0.0"
    monkeypatch.setitem(sys.modules, "durabletask_aio.core._upstream", None)
    monkeypatch.delattr(durabletask_aio.core, "_upstream")
    with pytest.raises(ImportError, match=r"and 1\.0\.0 is installed"):
        installation.quick_check()


def test_the_quick_check_of_an_upstream_that_has_changed_verifies(versions, monkeypatch):
    monkeypatch.setattr(_upstream, "self_check", lambda: "durabletask has changed: x is gone")
    with pytest.raises(ImportError, match="x is gone"):
        installation.quick_check()


def test_the_first_workflow_checks(versions):
    async def workflow(ctx):
        raise NotImplementedError

    versions["durabletask"] = "1.11.0"
    with pytest.raises(ImportError, match=r"and 1\.11\.0 is installed"):
        as_orchestrator(workflow)
