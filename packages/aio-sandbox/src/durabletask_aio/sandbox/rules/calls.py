"""The calls of the catalogue, in one block of names per rule code.

A name may carry a condition after `?` (see `conditions`). A name of a third-party package has no cost where the package
is not installed: calls are compared with modules that are already imported, and the sandbox imports none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from durabletask_aio.sandbox.rules.catalogue import Call
from durabletask_aio.sandbox.rules.definitions import RULES

_BY_CODE: Final = {rule.code: rule for rule in RULES}

_BLOCKS: Final[tuple[tuple[str, str], ...]] = (
    (
        "DET101",
        """
        time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns
        time.process_time time.process_time_ns time.thread_time time.thread_time_ns
        time.clock_gettime time.clock_gettime_ns
        time.localtime?without-arguments time.gmtime?without-arguments time.ctime?without-arguments
        time.asctime?without-arguments time.strftime?without-time
        datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today
        """,
    ),
    (
        "DET102",
        """
        datetime.datetime.fromtimestamp?without-zone datetime.date.fromtimestamp time.mktime
        datetime.datetime.astimezone?without-arguments time.tzset
        """,
    ),
    ("DET110", "time.sleep"),
    (
        "DET201",
        """
        random.random random.randint random.randrange random.choice random.choices random.shuffle random.sample
        random.uniform random.triangular random.betavariate random.expovariate random.gammavariate random.gauss
        random.lognormvariate random.normalvariate random.vonmisesvariate random.paretovariate random.weibullvariate
        random.binomialvariate random.getrandbits random.randbytes random.seed random.getstate random.setstate
        """,
    ),
    ("DET202", "random.Random?without-seed"),
    ("DET301", "uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.getnode"),
    (
        "DET302",
        """
        os.urandom os.getrandom random.SystemRandom secrets.SystemRandom secrets.token_hex secrets.token_bytes
        secrets.token_urlsafe secrets.choice secrets.randbelow secrets.randbits ssl.RAND_bytes
        """,
    ),
    (
        "DET401",
        """
        os.getenv os.getenvb os.putenv os.unsetenv os.environ os.environb os.getcwd os.getcwdb os.get_exec_path
        os.path.expanduser os.path.expandvars os.path.abspath os.umask
        pathlib.Path.cwd pathlib.Path.home locale.getlocale locale.setlocale locale.getpreferredencoding
        locale.getdefaultlocale locale.localeconv locale.getencoding
        """,
    ),
    (
        "DET402",
        """
        os.getpid os.getppid os.getuid os.geteuid os.getgid os.getegid os.getgroups os.getlogin os.getpgid os.getpgrp
        os.getsid os.uname os.getloadavg os.times os.cpu_count os.process_cpu_count os.sched_getaffinity os.ctermid
        os.get_terminal_size os.getpriority shutil.get_terminal_size
        multiprocessing.cpu_count multiprocessing.current_process multiprocessing.active_children
        socket.gethostname socket.getfqdn
        platform.node platform.uname platform.platform platform.processor platform.machine platform.version
        platform.release platform.system
        getpass.getuser resource.getrusage
        """,
    ),
    (
        "DET501",
        """
        open io.open io.FileIO io.open_code os.open os.fdopen os.read os.write os.listdir os.scandir os.walk os.fwalk
        os.stat os.lstat
        os.fstat os.access os.chdir os.chmod os.chown os.remove os.unlink os.rename os.renames os.replace os.link
        os.symlink os.readlink os.mkdir os.makedirs os.rmdir os.removedirs os.truncate os.utime os.mkfifo os.statvfs
        os.sendfile os.pipe os.path.exists os.path.lexists os.path.isfile os.path.isdir os.path.islink os.path.ismount
        os.path.getsize os.path.getmtime os.path.getatime os.path.getctime os.path.samefile os.path.realpath
        pathlib.Path.read_text pathlib.Path.read_bytes pathlib.Path.write_text pathlib.Path.write_bytes
        pathlib.Path.open pathlib.Path.exists pathlib.Path.is_file pathlib.Path.is_dir pathlib.Path.is_symlink
        pathlib.Path.is_mount pathlib.Path.stat pathlib.Path.lstat pathlib.Path.iterdir pathlib.Path.glob
        pathlib.Path.rglob pathlib.Path.walk pathlib.Path.mkdir pathlib.Path.rmdir pathlib.Path.touch
        pathlib.Path.unlink pathlib.Path.rename pathlib.Path.replace pathlib.Path.chmod pathlib.Path.symlink_to
        pathlib.Path.hardlink_to pathlib.Path.readlink pathlib.Path.resolve pathlib.Path.samefile pathlib.Path.owner
        pathlib.Path.group pathlib.Path.expanduser pathlib.Path.absolute
        glob.glob glob.iglob shutil.copy shutil.copy2 shutil.copyfile shutil.copytree shutil.copymode shutil.copystat
        shutil.move shutil.rmtree shutil.disk_usage shutil.which shutil.make_archive shutil.unpack_archive
        shutil.chown
        tempfile.mkdtemp tempfile.mkstemp tempfile.mktemp tempfile.gettempdir tempfile.NamedTemporaryFile
        tempfile.TemporaryFile tempfile.SpooledTemporaryFile tempfile.TemporaryDirectory
        sqlite3.connect shelve.open dbm.open gzip.open bz2.open lzma.open tarfile.open zipfile.ZipFile
        zipfile.is_zipfile
        logging.FileHandler logging.handlers.RotatingFileHandler logging.handlers.TimedRotatingFileHandler
        logging.handlers.WatchedFileHandler logging.config.fileConfig logging.basicConfig?with:filename
        pkgutil.iter_modules pkgutil.walk_packages
        gzip.GzipFile bz2.BZ2File lzma.LZMAFile tarfile.TarFile tarfile.is_tarfile codecs.open fileinput.input
        linecache.getline linecache.getlines filecmp.cmp filecmp.cmpfiles filecmp.dircmp
        mmap.mmap importlib.resources.read_text importlib.resources.read_binary importlib.resources.open_text
        importlib.resources.open_binary pkgutil.get_data
        """,
    ),
    (
        "DET502",
        """
        socket.socket socket.create_connection socket.create_server socket.socketpair socket.fromfd
        socket.getaddrinfo socket.gethostbyname socket.gethostbyname_ex socket.gethostbyaddr socket.getnameinfo
        socket.getservbyname
        socket.socket.connect socket.socket.send socket.socket.sendall socket.socket.recv socket.socket.bind
        socket.socket.listen socket.socket.accept
        ssl.create_default_context ssl.get_server_certificate ssl.wrap_socket
        urllib.request.urlopen urllib.request.urlretrieve urllib.request.build_opener urllib.request.OpenerDirector.open
        http.client.HTTPConnection http.client.HTTPSConnection http.client.HTTPConnection.request
        smtplib.SMTP smtplib.SMTP_SSL ftplib.FTP ftplib.FTP_TLS poplib.POP3 imaplib.IMAP4 imaplib.IMAP4_SSL
        telnetlib.Telnet nntplib.NNTP xmlrpc.client.ServerProxy socketserver.TCPServer http.server.HTTPServer
        logging.handlers.SocketHandler logging.handlers.DatagramHandler logging.handlers.SysLogHandler
        logging.handlers.SMTPHandler logging.handlers.HTTPHandler
        select.select select.poll selectors.DefaultSelector webbrowser.open
        asyncio.open_connection asyncio.start_server asyncio.open_unix_connection asyncio.start_unix_server
        """,
    ),
    (
        "DET503",
        """
        subprocess.run subprocess.call subprocess.check_call subprocess.check_output subprocess.getoutput
        subprocess.getstatusoutput subprocess.Popen
        os.system os.popen os.fork os.forkpty os.spawnl os.spawnle os.spawnlp os.spawnlpe os.spawnv os.spawnve
        os.spawnvp os.spawnvpe os.execl os.execle os.execlp os.execlpe os.execv os.execve os.execvp os.execvpe
        os.posix_spawn os.posix_spawnp os.kill os.killpg os.abort os._exit os.wait os.waitpid os.nice os.startfile
        multiprocessing.Process multiprocessing.Pool multiprocessing.Queue multiprocessing.Pipe
        multiprocessing.Manager multiprocessing.Process.start pty.spawn
        asyncio.create_subprocess_exec asyncio.create_subprocess_shell
        signal.signal signal.alarm signal.setitimer signal.pause signal.raise_signal signal.sigwait
        """,
    ),
    (
        "DET601",
        """
        threading.Thread threading.Timer threading.Thread.start _thread.start_new_thread _thread.start_joinable_thread
        concurrent.futures.ThreadPoolExecutor concurrent.futures.ProcessPoolExecutor
        concurrent.futures.ThreadPoolExecutor.submit concurrent.futures.ProcessPoolExecutor.submit
        concurrent.futures.Executor.map concurrent.futures.Executor.submit concurrent.futures.ThreadPoolExecutor.map
        concurrent.futures.ProcessPoolExecutor.map multiprocessing.pool.ThreadPool
        asyncio.to_thread asyncio.run_coroutine_threadsafe asyncio.wrap_future
        asyncio.AbstractEventLoop.run_in_executor asyncio.BaseEventLoop.run_in_executor
        anyio.to_thread.run_sync
        """,
    ),
    (
        "DET602",
        """
        threading.current_thread threading.currentThread threading.get_ident threading.get_native_id
        threading.active_count threading.activeCount threading.enumerate threading.main_thread _thread.get_ident
        _thread.get_native_id
        """,
    ),
    (
        "DET603",
        """
        asyncio.run asyncio.new_event_loop asyncio.Runner asyncio.set_event_loop
        asyncio.AbstractEventLoop.run_until_complete asyncio.AbstractEventLoop.run_forever
        asyncio.BaseEventLoop.run_until_complete asyncio.BaseEventLoop.run_forever anyio.run trio.run
        """,
    ),
    ("DET604", "asyncio.wait_for"),
    ("DET701", "input breakpoint getpass.getpass sys.stdin.readline sys.stdin.read"),
    ("DET702", "id hash?of-text"),
    ("DET704", "eval exec compile importlib.import_module importlib.reload"),
    (
        "DET705",
        """
        gc.collect gc.get_objects gc.get_referrers gc.get_count gc.get_stats sys.getrefcount weakref.getweakrefcount
        weakref.finalize tracemalloc.get_traced_memory
        """,
    ),
    (
        "DET804",
        """
        threading.Lock.acquire threading.RLock.acquire threading.Event.wait threading.Condition.acquire
        threading.Condition.wait
        threading.Condition.wait_for threading.Semaphore.acquire threading.Barrier.wait threading.Thread.join
        queue.Queue.get queue.Queue.put queue.Queue.join queue.SimpleQueue.get queue.LifoQueue.get
        queue.PriorityQueue.get concurrent.futures.Future.result concurrent.futures.wait
        concurrent.futures.as_completed
        """,
    ),
)

_FIXES: Final[dict[str, str]] = {
    "time.time": "{ctx}.now().timestamp()",
    "time.time_ns": "int({ctx}.now().timestamp() * 1_000_000_000)",
    "time.monotonic": "{ctx}.now().timestamp()",
    "time.monotonic_ns": "int({ctx}.now().timestamp() * 1_000_000_000)",
    "time.perf_counter": "{ctx}.now().timestamp()",
    "time.perf_counter_ns": "int({ctx}.now().timestamp() * 1_000_000_000)",
    "time.localtime": "{ctx}.now().timetuple()",
    "time.gmtime": "{ctx}.now().timetuple()",
    "time.ctime": "{ctx}.now().ctime()",
    "time.asctime": "{ctx}.now().ctime()",
    "time.strftime": "{ctx}.now().strftime({args})",
    "time.sleep": "await {ctx}.sleep({args})",
    "datetime.datetime.now": "{ctx}.now({args})",
    "datetime.datetime.utcnow": "{ctx}.now().replace(tzinfo=None)",
    "datetime.datetime.today": "{ctx}.now()",
    "datetime.date.today": "{ctx}.now().date()",
    "random.Random": "{ctx}.random()",
    "uuid.uuid1": "{ctx}.uuid4()",
    "uuid.uuid4": "{ctx}.uuid4()",
    "uuid.uuid6": "{ctx}.uuid4()",
    "uuid.uuid7": "{ctx}.uuid4()",
    "input": "await {ctx}.wait_for_external_event('input')",
}
_NAMES_OF_STEPS: Final = """
    secrets.token_hex secrets.token_urlsafe secrets.randbelow secrets.randbits
    os.getenv os.getcwd os.path.expanduser os.path.expandvars locale.getpreferredencoding locale.getencoding
    os.getpid os.getppid os.getuid os.geteuid os.getgid os.getegid os.getgroups os.getlogin os.cpu_count
    os.process_cpu_count multiprocessing.cpu_count socket.gethostname socket.getfqdn
    platform.node platform.platform platform.processor platform.machine platform.version platform.release
    platform.system getpass.getuser
    os.listdir os.remove os.unlink os.rename os.replace os.mkdir os.makedirs os.rmdir
    os.path.exists os.path.isfile os.path.isdir os.path.getsize os.path.getmtime
    pathlib.Path.read_text pathlib.Path.write_text pathlib.Path.exists pathlib.Path.is_file pathlib.Path.is_dir
    glob.glob shutil.which socket.gethostbyname subprocess.getoutput os.system
"""
_RETURN_DATA: Final = frozenset(_NAMES_OF_STEPS.split())
"""Calls for short work whose results the history can record, so that a step can make them in place of the workflow."""
_STEP_FIX: Final = "await {ctx}.run({call}{more})"
_GENERATOR_FIXES: Final[dict[str, str]] = {
    "time.time": "{ctx}.current_utc_datetime.replace(tzinfo=timezone.utc).timestamp()",
    "datetime.datetime.now": "{ctx}.current_utc_datetime",
    "datetime.datetime.utcnow": "{ctx}.current_utc_datetime",
    "datetime.datetime.today": "{ctx}.current_utc_datetime",
    "datetime.date.today": "{ctx}.current_utc_datetime.date()",
    "time.sleep": "yield {ctx}.create_timer(timedelta(seconds={args}))",
    "random.Random": "random.Random({ctx}.instance_id)",
    "uuid.uuid1": "uuid.UUID({ctx}.new_uuid())",
    "uuid.uuid4": "uuid.UUID({ctx}.new_uuid())",
}
_RANDOM_WITHOUT_FIX: Final = frozenset({"random.seed", "random.getstate", "random.setstate"})
_ALTERNATIVES: Final[dict[str, str]] = {
    "time.localtime": "`ctx.now()`; with a time given, `time.gmtime(t)`",
    "uuid.getnode": "the workflow's input, `await ctx.run(...)`, or an activity",
    "random.seed": "`ctx.random()`, or a `random.Random(seed)` of the workflow's own",
    "os.path.abspath": "paths that do not depend on the working directory",
    "asyncio.wrap_future": "an activity for the work behind the future: its result is recorded and read back on replay",
    "breakpoint": 'the debugger with sandbox mode "off"',
}


def _fix_of(name: str, code: str) -> str | None:
    if code == "DET201" and name.startswith("random.") and name not in _RANDOM_WITHOUT_FIX:
        return f"{{ctx}}.random().{name.removeprefix('random.')}({{args}})"
    return _STEP_FIX if name in _RETURN_DATA else _FIXES.get(name)


def _read_blocks() -> Iterator[Call]:
    for code, block in _BLOCKS:
        for entry in block.split():
            name, _, condition = entry.partition("?")
            if "." not in name:
                name = f"builtins.{name}"
            short = name.removeprefix("builtins.")
            yield Call(
                name,
                _BY_CODE[code],
                condition or None,
                _fix_of(short, code),
                _GENERATOR_FIXES.get(short),
                _ALTERNATIVES.get(short),
            )


CALLS: Final[tuple[Call, ...]] = tuple(_read_blocks())
# `time.localtime(t)` with an argument breaks another rule than `time.localtime()`. Where the condition of the entry in
# CALLS does not hold, the entry here is tried.
FALLBACK_CALLS: Final[dict[str, Call]] = {
    name: Call(name, _BY_CODE["DET102"], "with-argument", alternative="`time.gmtime(t)`")
    for name in ("time.localtime", "time.ctime")
}
