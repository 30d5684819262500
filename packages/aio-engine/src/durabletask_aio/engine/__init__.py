"""The durable engine; its public import path is `durabletask.aio.engine`.

The modules (a test compares this list with the files):

The state machine, which does no I/O:
    state: instances, inboxes, activities, timers, entities and locks as plain data.
    events: builds and frames encoded history events.
    transitions: what a command makes of an instance, as pure functions.
    turns: what the answer to a turn makes of an instance.
    forking: where a fork cuts a history, and the instance that begins with the part before the cut.
    entity_transitions: what batches and lock requests change of entities.

What is kept:
    store: what the engine asks of a store.
    schema: the tables, and the steps from older ones.
    reading: queries, and rows as the engine's state.
    sqlite: the store in one SQLite database.
    memory: the store of a test.

At work:
    commands: loads, computes and writes, in one transaction.
    pending: a command that waits for its transaction.
    opening: opens a database: its lock, the store and the kernel.
    kernel: runs commands in groups, and publishes what they have changed.
    crash_loops: instances whose turns end the process.
    streams: the streams of workers, the items that go to them and the leases on what they hold, as data.
    queues: a queue of work items.
    abandoned: work items that a worker has given back.
    kept_leases: the leases that are in the file.
    dispatch: dispatches work items to streams, within their limits.
    sessions: the instances that workers keep alive between turns.
    retention: purges what ended long ago.
    watchers: who is told when an instance changes.
    work: work items on their way to a worker.
    tokens: completion tokens, which say what an answer counts for.
    clock: the machine's time and a virtual one.

For the outside:
    encoding: work items as messages and as bytes.
    answering: the engine's errors as gRPC's.
    service: upstream's service.
    worker_calls: the part of it that workers use.
    client_waits: clients that wait for an instance.
    descriptions: instances and entities as clients know them.
    management.service: the second service, for what upstream's protocol has no call for.
    management.client: its typed client.
    management.rpc: both ends of gRPC for it.
    management.management_pb2: its messages, generated.
    server: both services behind a gRPC server.
    bearer: the bearer token of clients.
    embedded: the engine in a program of one's own.
    exporting: histories as JSON documents.
    failure_texts: failures as the second service writes them.
    serving: what the commands that run an engine share.
    cli: `durabletask-aio serve`, `backup`, `export`, `fork`, `purge` and `retention`.
    instance_commands: `durabletask-aio start`, `list`, `show`, `raise`, `suspend`, `resume`, `cancel`, `terminate`.
    run_command: `durabletask-aio run`.
    command_targets: which engine a command is for.

The page, with the extra `ui`:
    web.app: the ASGI application.
    web.server: serves it with uvicorn.
    web.access: host names, the token, forms.
    web.site: templates, forms and messages, for all pages.
    web.backend: the engine as the page uses it.
    web.search: the list's address as a search.
    web.lists: the list of instances.
    web.instance: the page of an instance.
    web.history: the events of a history for a page.
    web.timeline: what an instance did and when, as rows of bars.
    web.actions: what users can do with an instance.
    web.entities: the entities.
    web.metrics: statistics for Prometheus, with the extra `metrics`.
    web.waiting: what an instance awaits, from code that knows the workflow.
    web.payloads: payloads as HTML.
    web.formats: statuses, times and sizes as text.
    web.errors: what went wrong, for users.

Helpers:
    file_lock: one engine at a time on a file.
    loopback: ports on the loopback addresses.
    threads: the server's thread pool.

Calls in this process:
    channel, channel_aio: `InProcessChannel` and `InProcessAioChannel`, which call a servicer as over a socket.
    intercepted_aio: calls that interceptors of the asyncio API make.
    calls: the state of a call, and the methods of servicers.
    deadlines: one thread for the deadlines of calls that wait.

For upstream:
    _upstream: the adapter to `durabletask`.
"""
