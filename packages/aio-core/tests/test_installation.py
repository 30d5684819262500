"""Whether what is installed fits together, as `import durabletask.aio` and the first registration find out."""

import sys
from importlib import metadata

import durabletask
import pytest
from durabletask.aio import as_orchestrator
from packaging.requirements import Requirement

import durabletask_aio.core
from durabletask_aio.core import _upstream, installation


@pytest.fixture
def versions(monkeypatch):
    """Pretend that exactly these distributions are installed, in these versions."""
    installed = {"durabletask": "1.12.0", "durabletask-aio-core": "0.1.0"}

    def version(name):
        try:
            return installed[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: ["packaging>=22", "durabletask>=1.12,<2"])
    installation.check.cache_clear()
    yield installed
    installation.check.cache_clear()


def test_what_fits_is_silent(versions):
    installation.check()


def test_what_is_installed_here_fits():
    installation.check()


@pytest.mark.parametrize("found", ["1.11.0", "2.0.0", "0.5"])
def test_a_version_out_of_range_names_both_and_the_line_to_install(versions, found):
    versions["durabletask"] = found
    with pytest.raises(ImportError) as caught:
        installation.check()
    wanted = Requirement("durabletask>=1.12,<2")
    assert str(caught.value) == (
        f"durabletask-aio-core 0.1.0 works with {wanted}, and {found} is installed\n  pip install '{wanted}'"
    )


@pytest.mark.parametrize("found", ["1.13.0", "1.99", "1.13.0rc1"])
def test_newer_ones_in_range_are_accepted(versions, found):
    versions["durabletask"] = found
    installation.check()


def test_without_upstream_the_line_to_install_is_given(versions):
    del versions["durabletask"]
    with pytest.raises(ImportError) as caught:
        installation.check()
    assert str(caught.value) == (
        "durabletask.aio needs Microsoft's durabletask, which is not installed\n  pip install durabletask"
    )


def test_a_distribution_that_takes_upstreams_place_is_named_with_the_way_out(versions):
    versions["durabletask-dapr"] = "0.2"
    with pytest.raises(ImportError) as caught:
        installation.check()
    assert str(caught.value) == (
        "durabletask-dapr is installed; it puts a 'durabletask' package of its own in the place of Microsoft's, which "
        "durabletask-aio-core extends\n"
        "  pip uninstall durabletask-dapr\n"
        "  pip install --force-reinstall --no-deps durabletask durabletask-aio-core"
    )


def test_a_source_tree_that_nobody_installed_states_no_range(versions, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    versions["durabletask"] = "99.0"
    installation.check()


def test_an_upstream_that_has_changed_under_us_is_an_import_error(versions, monkeypatch):
    monkeypatch.setattr(
        _upstream, "self_check", lambda: "durabletask has changed under durabletask-aio-core: x is gone"
    )
    with pytest.raises(ImportError) as caught:
        installation.check()
    assert str(caught.value) == (
        "durabletask has changed under durabletask-aio-core: x is gone (found: durabletask 1.12.0)"
    )


def test_a_glance_at_what_fits_asks_no_further(versions):
    del versions["durabletask"]
    installation.glance()


def test_a_glance_at_traces_of_an_impostor_asks(versions, tmp_path, monkeypatch):
    (tmp_path / "durabletask_dapr-0.2.dist-info").mkdir()
    monkeypatch.setattr(durabletask, "__path__", ["beside an archive.zip/durabletask", str(tmp_path / "durabletask")])
    installation.glance()  # of another place, as it turns out

    versions["durabletask-dapr"] = "0.2"
    installation.check.cache_clear()
    with pytest.raises(ImportError, match="pip uninstall durabletask-dapr"):
        installation.glance()


def test_a_glance_at_an_upstream_that_cannot_be_imported_asks(versions, monkeypatch):
    versions["durabletask"] = "1.0.0"
    monkeypatch.setitem(sys.modules, "durabletask_aio.core._upstream", None)
    monkeypatch.delattr(durabletask_aio.core, "_upstream")
    with pytest.raises(ImportError, match=r"and 1\.0\.0 is installed"):
        installation.glance()


def test_a_glance_at_an_upstream_that_has_changed_asks(versions, monkeypatch):
    monkeypatch.setattr(_upstream, "self_check", lambda: "durabletask has changed: x is gone")
    with pytest.raises(ImportError, match="x is gone"):
        installation.glance()


def test_the_first_workflow_checks(versions):
    async def workflow(ctx):
        raise NotImplementedError

    versions["durabletask"] = "1.11.0"
    with pytest.raises(ImportError, match=r"and 1\.11\.0 is installed"):
        as_orchestrator(workflow)
