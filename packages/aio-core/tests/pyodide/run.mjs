// Runs pytest on CPython 3.14 (Pyodide): node run.mjs [--site DIRECTORY] ARGUMENTS OF PYTEST
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { loadPyodide } from "pyodide";

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
let site = resolve(here, "site");
if (args[0] === "--site") {
  site = resolve(args[1]);
  args.splice(0, 2);
}
const python = await loadPyodide({ stdout: console.log, stderr: console.error });
for (const [place, folder] of [["/repository", resolve(here, "../../../..")], ["/site", site]]) {
  python.FS.mkdir(place);
  python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, place);
}
python.globals.set("arguments", python.toPy(args));
process.exitCode = python.runPython(`
import asyncio, os, pathlib, sys, tomllib, types
from unittest import mock

CORE = "/repository/packages/aio-core"

class Stub(types.ModuleType):
    """Stands in for grpc, which cannot be compiled for this platform: any name in it is some class."""
    __path__ = []
    __version__ = "999.0.0"
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = type(name, (Exception,) if name.endswith("Error") else (), {"__getattr__": lambda self, name: mock.MagicMock()})
        setattr(self, name, found)
        return found

for name in ("grpc", "grpc.aio", "grpc._utilities"):
    sys.modules[name] = Stub(name)
sys.modules["grpc._utilities"].first_version_is_lower = lambda *_: False
sys.modules["grpc"].aio = sys.modules["grpc.aio"]
sys.dont_write_bytecode = True
sys.path[:0] = [CORE + "/src", "/site", "/metadata"]
# What installing the core would say of it, ...
project = tomllib.loads(pathlib.Path(CORE, "pyproject.toml").read_text())["project"]
metadata = pathlib.Path("/metadata", f"{project['name'].replace('-', '_')}-{project['version']}.dist-info", "METADATA")
metadata.parent.mkdir(parents=True)
metadata.write_text(f"Metadata-Version: 2.4\\nName: {project['name']}\\nVersion: {project['version']}\\n")
import durabletask
# ... and its facade, where installing would put it.
facade = types.ModuleType("durabletask.aio")
facade.__path__ = []
facade.__package__ = facade.__name__
facade.__file__ = CORE + "/facade/__init__.py"
with open(facade.__file__) as file:
    source = file.read()
sys.modules["durabletask.aio"] = durabletask.aio = facade
exec(compile(source, facade.__file__, "exec"), facade.__dict__)
os.chdir(CORE)
# Pyodide's loop is the running one of its only thread all the time; tests are to find a thread as others have it.
asyncio._set_running_loop(None)
import pytest
print(sys.version)
int(pytest.main(["-c", CORE + "/tests/pyodide/pytest.ini", "--rootdir", CORE, "--confcutdir", CORE, *arguments]))
`);
process.exit();
