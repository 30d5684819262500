"""For the tests of all packages: the programs that they start get SIGINT.

A shell starts what it runs in the background (`... &`) with SIGINT ignored, and that is inherited.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
