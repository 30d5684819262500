"""Set everything up and run the tests of all packages: `python3 scripts/test.py [pytest arguments]`.

Without arguments, three files of tests run at a time; with arguments, whatever those say.
"""

import sys

import _setup

if __name__ == "__main__":
    python = _setup.prepare(_setup.TEST_REQUIREMENTS)
    # A file at a time, since the tests of one share fixtures; three processes keep two cores busy, for many tests wait.
    arguments = sys.argv[1:] or ["-n", "3", "--dist", "loadfile"]
    sys.exit(_setup.run([python, "-m", "pytest"] + arguments))
