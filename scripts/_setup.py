"""A virtual environment with the packages of this repository in it, made with nothing but Python and pip.

Old Python versions can parse it, so that they print a sentence instead of a syntax error: there are no annotations.
"""

import hashlib
import os
import subprocess
import sys
import time

OLDEST_PYTHON = (3, 10)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENT = os.path.join(ROOT, ".venv")
# Without the one for Dapr, whose tests have an environment of their own: `hatch run dapr:all`.
PACKAGES = ("core", "sandbox", "worker", "testing", "engine")
TEST_REQUIREMENTS = (
    "anyio>=4",
    "cattrs>=24.1",
    "exceptiongroup; python_version < '3.11'",
    "fastapi>=0.110",
    "httpx>=0.27",
    "hypothesis>=6.100",
    "jinja2>=3.1",
    "opentelemetry-sdk>=1",
    "playwright>=1.49",
    "prometheus-client>=0.20",
    "psutil>=5.9",
    "pydantic>=2",
    "pytest-asyncio>=1.1,<2",
    "pytest-rerunfailures>=15",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "pytest>=8.4,<10",
    "starlette>=0.37",
    "uvicorn>=0.29",
)

NO_ENSUREPIP = (
    "This Python ({executable}) cannot make virtual environments: its 'ensurepip' module is missing.\n"
    "On Debian and Ubuntu, install it and run this command again:\n\n"
    "    sudo apt-get install python3-venv\n"
)


def prepare(requirements=()):
    """Return the path of a Python that has the five packages and `requirements`, installing what is missing.

    Nothing is installed when nothing has changed since last time.  Whatever goes wrong ends the program with a
    sentence that says what to do.
    """
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(
            "durabletask-aio needs Python 3.10 or newer; this is %d.%d (%s).\n"
            "Start the command with a newer one, for example: python3.12 %s"
            % (sys.version_info[0], sys.version_info[1], sys.executable, " ".join(sys.argv))
        )
    python = _python_in(ENVIRONMENT)
    stamp = os.path.join(ENVIRONMENT, "durabletask-aio-%s.stamp" % ("test" if requirements else "run"))
    state = _state_of_the_sources(requirements)
    if _read(stamp) == state:
        return python
    started = time.monotonic()
    print("Setting up %s for Python %d.%d ..." % ((os.path.relpath(ENVIRONMENT),) + sys.version_info[:2]), flush=True)
    _make_environment(python)
    arguments = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for package in PACKAGES:
        # Editable, and all in one command: pip then finds each package's siblings here instead of asking an index.
        arguments += ["--editable", os.path.join(ROOT, "packages", "aio-" + package)]
    # In addition to the engine alone: older versions of pip do not find it for its siblings by its name with an extra.
    arguments += ["--editable", os.path.join(ROOT, "packages", "aio-engine") + "[ui]"]
    _run(arguments + list(requirements), "pip could not install the packages; its last words are above.")
    with open(stamp, "w") as file:
        file.write(state)
    print("... done in %.0f seconds.\n" % (time.monotonic() - started), flush=True)
    return python


def run(arguments):
    """Replace this program by `arguments`, as far as the platform can: same terminal, same exit status."""
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)  # what is tested and shown is what is installed
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start hundreds of interpreters
    try:
        return subprocess.call(arguments, cwd=ROOT, env=environment)
    except KeyboardInterrupt:
        return 130


def _make_environment(python):
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(NO_ENSUREPIP.format(executable=sys.executable))
    version = "%d.%d" % sys.version_info[:2]
    if os.path.exists(python) and _version_of(python) == version:
        return
    # One folder, which editors find by its name; with another Python than last time it starts from nothing.
    _run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], "Could not make the virtual environment.")


def _python_in(environment):
    if os.name == "nt":
        return os.path.join(environment, "Scripts", "python.exe")
    return os.path.join(environment, "bin", "python")


def _version_of(python):
    try:
        output = subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.decode().strip()


def _state_of_the_sources(requirements):
    """Change whenever the packages must be installed again: Python, metadata, and the facades, which are copies."""
    digest = hashlib.sha256(repr((sys.version_info[:2], ROOT, tuple(requirements))).encode())
    for package in PACKAGES:
        folder = os.path.join(ROOT, "packages", "aio-" + package)
        facade = os.path.join(folder, "facade")
        files = [os.path.join(facade, name) for name in sorted(os.listdir(facade)) if name.endswith(".py")]
        for path in [os.path.join(folder, "pyproject.toml")] + files:
            with open(path, "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _run(arguments, complaint):
    result = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        sys.stdout.write(result.stdout.decode(errors="replace"))
        sys.exit("\n%s\nThe command was: %s" % (complaint, " ".join(arguments)))
