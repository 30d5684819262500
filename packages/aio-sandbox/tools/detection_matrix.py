# ruff: noqa: T201  # what a script is for
"""The detection matrix: calls of the catalogue, bound in every way, on this Python.

    python tools/detection_matrix.py measure results-3.12.json    # once per Python
    python tools/detection_matrix.py render results-*.json > docs/reference/detection-matrix.md

The static analysis is measured with every call of the catalogue; the layers that work at run time with calls that do no
harm if they are missed. Every case is a module of its own, which is written, imported, registered and run in one turn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import importlib
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from durabletask_aio.core import NonDeterminismWarning, SandboxMode, SandboxViolationError
from durabletask_aio.sandbox.rules.default import default_catalogue
from durabletask_aio.sandbox.runtime.sandbox import Layer, WorkflowSandbox

HARMLESS: dict[str, str] = {
    "time.time": "",
    "time.time_ns": "",
    "time.monotonic": "",
    "time.perf_counter": "",
    "time.process_time": "",
    "time.thread_time": "",
    "time.localtime": "",
    "time.gmtime": "",
    "time.ctime": "",
    "time.strftime": "'%Y'",
    "datetime.datetime.now": "",
    "datetime.datetime.utcnow": "",
    "datetime.datetime.today": "",
    "datetime.date.today": "",
    "time.sleep": "0",
    "random.random": "",
    "random.randint": "1, 6",
    "random.choice": "'abc'",
    "random.shuffle": "[1, 2]",
    "random.uniform": "1, 2",
    "random.gauss": "0, 1",
    "random.getrandbits": "8",
    "random.sample": "[1, 2], 1",
    "random.Random": "",
    "uuid.uuid1": "",
    "uuid.uuid4": "",
    "uuid.getnode": "",
    "os.urandom": "4",
    "random.SystemRandom": "",
    "secrets.token_hex": "4",
    "secrets.choice": "'ab'",
    "secrets.randbelow": "4",
    "os.environ": "",
    "os.getenv": "'HOME'",
    "os.getcwd": "",
    "pathlib.Path.cwd": "",
    "locale.getlocale": "",
    "os.getpid": "",
    "os.getppid": "",
    "os.cpu_count": "",
    "socket.gethostname": "",
    "socket.getfqdn": "'localhost'",
    "platform.node": "",
    "platform.platform": "",
    "getpass.getuser": "",
    "builtins.open": "__file__",
    "io.open": "__file__",
    "os.listdir": "'.'",
    "os.scandir": "'.'",
    "os.stat": "'.'",
    "os.access": "'.', 0",
    "os.path.exists": "'.'",
    "os.path.getsize": "'.'",
    "pathlib.Path.exists": "pathlib.Path('.')",
    "pathlib.Path.read_text": "pathlib.Path(__file__)",
    "glob.glob": "'nothing-*'",
    "shutil.which": "'nothing'",
    "tempfile.gettempdir": "",
    "sqlite3.connect": "':memory:'",
    "socket.socket": "",
    "socket.getaddrinfo": "'127.0.0.1', 80",
    "ssl.create_default_context": "",
    "http.client.HTTPConnection": "'127.0.0.1'",
    "subprocess.getoutput": "'true'",
    "os.system": "'true'",
    "signal.raise_signal": "0",
    "threading.Thread": "",
    "concurrent.futures.ThreadPoolExecutor": "1",
    "asyncio.to_thread": "len, ()",
    "asyncio.run": "None",
    "threading.current_thread": "",
    "threading.get_ident": "",
    "builtins.id": "1",
    "builtins.hash": "'a'",
    "builtins.eval": "'1'",
    "gc.get_count": "",
    "sys.getrefcount": "1",
}
BINDINGS = {
    "module": "module attribute",
    "from": "from-import",
    "alias": "alias at the top of the module",
    "default": "default argument",
    "inside": "import inside the function",
    "helper": "helper in another module",
    "helper_from": "helper, imported inside the function",
    "method": "method of a class",
    "partial": "`functools.partial`",
    "c_iterator": "called from C: `map`, `iter`",
    "c_key": "called from C: `key=`, `defaultdict`",
    "getattr": "`getattr` with a computed name",
    "closure": "closure",
}
_FROM_C = ("c_iterator", "c_key")
SETUPS: dict[str, tuple[SandboxMode, frozenset[Layer]]] = {
    "best_effort": (SandboxMode.BEST_EFFORT, frozenset(Layer)),
    "strict": (SandboxMode.STRICT, frozenset(Layer)),
    "static": (SandboxMode.STRICT, frozenset({Layer.STATIC})),
    "redirect": (SandboxMode.STRICT, frozenset({Layer.REDIRECT})),
    "watch": (SandboxMode.STRICT, frozenset({Layer.MONITORING, Layer.PROFILING})),
}
INDENT = "    "
Results: TypeAlias = "dict[str, dict[str, dict[str, str]]]"
"""By call, binding and set-up: the verdict."""


def split(name: str) -> tuple[str, list[str]]:
    """The module of a call and the attributes after it."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:cut])
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
            return module, parts[cut:]
    raise LookupError(name)


def workflow(body: str, *, header: str = "", parameters: str = "ctx") -> str:
    lines = "\n".join(INDENT + line for line in body.splitlines())
    return f"{header}\nasync def workflow({parameters}):\n{lines}\n"


def arguments_of(text: str) -> list[str]:
    return [part for part in text.split(", ") if part]


def program(name: str, args: str, binding: str, number: str) -> tuple[str, str] | None:
    """The text of the main module and of its helper module; `None` if the binding does not apply."""
    module, path = split(name)
    if "pathlib" in args and module != "pathlib":
        return None
    if "=" in args and binding in _FROM_C:
        return None  # C passes values without keywords
    dotted = f"{module}.{'.'.join(path)}"
    use = "['PATH']" if name == "os.environ" else f"({args})"
    imports = f"import {module}"
    rest = "".join(f".{part}" for part in path[1:])
    parts = arguments_of(args)
    helper = f"{imports}\ndef h():\n    return {dotted}{use}\n"
    made: dict[str, tuple[str, str]] = {
        "module": (workflow(f"return {dotted}{use}", header=imports), ""),
        "from": (workflow(f"return r_{rest}{use}", header=f"{imports}\nfrom {module} import {path[0]} as r_"), ""),
        "alias": (workflow(f"return f_{use}", header=f"{imports}\nf_ = {dotted}"), ""),
        "default": (workflow(f"return f_{use}", header=imports, parameters=f"ctx, f_={dotted}"), ""),
        "inside": (workflow(f"{imports}\nreturn {dotted}{use}"), ""),
        "helper": (workflow(f"return helper_{number}.h()", header=f"import helper_{number}"), helper),
        "helper_from": (workflow(f"from helper_{number} import h\nreturn h()"), helper),
        "method": (
            workflow("return K().go()", header=f"{imports}\nclass K:\n    def go(self):\n        return {dotted}{use}"),
            "",
        ),
        "closure": (
            f"{imports}\ndef make():\n    f_ = {dotted}\n"
            + "\n".join(INDENT + line for line in workflow(f"return f_{use}").splitlines())
            + "\n    return workflow\nworkflow = make()\n",
            "",
        ),
        "getattr": (
            workflow(
                f"name = ''.join({list(path[-1])!r})\nreturn getattr({'.'.join([module, *path[:-1]])}, name){use}",
                header=imports,
            ),
            "",
        ),
    }
    if name != "os.environ":
        made["partial"] = (
            workflow(f"return functools.partial({dotted})({args})", header=f"{imports}\nimport functools"),
            "",
        )
        source = f"iter({dotted}, object())" if not parts else f"map({dotted}, {', '.join(f'[{p}]' for p in parts)})"
        made["c_iterator"] = (workflow(f"return next({source})", header=imports), "")
        if not parts:
            made["c_key"] = (
                workflow(f"return collections.defaultdict({dotted})['x']", header=f"{imports}\nimport collections"),
                "",
            )
        elif len(parts) == 1:
            made["c_key"] = (workflow(f"return sorted([{parts[0]}], key={dotted})", header=imports), "")
    return made.get(binding)


class Execution:
    instance_id = "instance"
    workflow_name = "workflow"
    is_replaying = False

    def now(self) -> dt.datetime:
        return dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)

    def stream(self, purpose: str) -> random.Random:
        return random.Random(purpose)


def cases(names: dict[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for index, (name, args) in enumerate(names.items()):
        for binding in BINDINGS:
            try:
                made = program(name, args, binding, f"{index}_{binding}")
            except LookupError:
                break
            if made is not None:
                yield name, binding, *made


def load(directory: Path, label: str, number: str, main: str, helper: str) -> Any:
    for prefix, text in (("helper", helper), ("main", main)):
        if text:
            text = text.replace(f"helper_{number}", f"helper_{label}_{number}")
            (directory / f"{prefix}_{label}_{number}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(f"main_{label}_{number}").workflow


def verdict(function: Any, mode: SandboxMode, layers: frozenset[Layer]) -> str:
    """`raised`, `warned` or `missed`; in best_effort `replaced` if the value is the same on replay."""
    sandbox = WorkflowSandbox(layers)
    values: list[Any] = []
    raised = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            guard = sandbox.guard(function, mode, workflow_name="workflow")
        except SandboxViolationError:
            return "raised"
        if layers != {Layer.STATIC}:
            for _ in range(1 if mode is SandboxMode.STRICT else 2):
                violation, value = drive(guard)
                raised = raised or violation
                values.append(value)
    if raised:
        return "raised"
    if not any(issubclass(each.category, NonDeterminismWarning) for each in caught):
        return "missed"
    return "replaced" if len(values) == 2 and values[0] == values[1] else "warned"


def drive(guard: Any) -> tuple[bool, Any]:
    watch = guard.begin(Execution())
    coroutine = guard.function(None)
    watch.enter()
    result: Any = None
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result = stop.value
    except Exception:  # the calls may fail for other reasons; what counts is what exit() returns
        pass
    finally:
        violation = watch.exit() is not None
        coroutine.close()
        if hasattr(result, "close"):
            result.close()
    return violation, result.getstate() if type(result) is random.Random else result


def measure(names: dict[str, str], setups: list[str]) -> Results:
    found: Results = {}
    with tempfile.TemporaryDirectory() as temporary:
        sys.path.insert(0, temporary)
        for number, (name, binding, main, helper) in enumerate(cases(names)):
            index = list(names).index(name)
            for label in setups:
                mode, layers = SETUPS[label]
                function = load(Path(temporary), f"{label}{number}", f"{index}_{binding}", main, helper)
                found.setdefault(name, {}).setdefault(binding, {})[label] = verdict(function, mode, layers)
        sys.path.remove(temporary)
    return found


def every_call() -> dict[str, str]:
    """Every call of the catalogue that this machine has, with arguments under which its condition holds."""
    given = {"without-time": "'%Y'", "with-argument": "1", "of-text": "'a'", "without-zone": "1"}
    given["with:filename"] = "filename='x'"
    names: dict[str, str] = {}
    for name, call in default_catalogue().calls.items():
        root = name.partition(".")[0]
        # The guard ignores calls that are only noted.
        if call.is_watched and (root in sys.stdlib_module_names or root == "builtins"):
            names[name] = HARMLESS.get(name, given.get(call.condition or "", ""))
    return {name: args for name, args in names.items() if exists(name)}


def exists(name: str) -> bool:
    try:
        module, path = split(name)
        value: Any = importlib.import_module(module)
        for part in path:
            value = getattr(value, part)
    except (LookupError, AttributeError):
        return False
    return True


def tally(found: Results, label: str) -> dict[str, int]:
    return dict(Counter(results[label] for bindings in found.values() for results in bindings.values()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["measure", "render"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--misses", action="store_true")
    options = parser.parse_args()
    if options.action == "measure":
        started = time.perf_counter()
        harmless = {name: args for name, args in HARMLESS.items() if exists(name)}
        results: dict[str, Any] = {
            "python": ".".join(map(str, sys.version_info[:2])),
            "run": measure(harmless, list(SETUPS)),
            "catalogue": measure(every_call(), ["static"]),
        }
        options.files[0].write_text(json.dumps(results))
        for label in SETUPS:
            print(results["python"], label, tally(results["run"], label))
        print(results["python"], "static, whole catalogue", tally(results["catalogue"], "static"))
        print(f"{time.perf_counter() - started:.0f} s")
        for name, bindings in results["run"].items():
            missed = [
                f"{binding}:{label}"
                for binding, each in bindings.items()
                for label in ("best_effort", "strict", "static")
                if each[label] == "missed"
            ]
            if options.misses and missed:
                print(name, *missed)
        if options.misses:
            print(
                {
                    name: [b for b, each in bindings.items() if each["static"] == "missed"]
                    for name, bindings in results["catalogue"].items()
                    if any(each["static"] == "missed" for each in bindings.values())
                }
            )
    else:
        from render_matrix import render

        print(render([json.loads(path.read_text()) for path in options.files], BINDINGS), end="")


if __name__ == "__main__":
    asyncio.set_event_loop(None)
    main()
