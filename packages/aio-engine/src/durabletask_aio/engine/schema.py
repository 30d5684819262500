"""The tables of a database, and how an older one becomes the newest.

Every version of the schema that was ever released stays here as the step that leads to it.
"""

from __future__ import annotations

APPLICATION_ID = 0x64746169
"""Marks a file as an engine's, so that another program's database is not taken for one: the bytes of `dtai`."""

MIGRATIONS: tuple[str, ...] = (
    # 1
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

    CREATE TABLE instances (
        key INTEGER PRIMARY KEY,
        instance_id TEXT NOT NULL UNIQUE,
        execution_id TEXT NOT NULL,
        turn_id TEXT NOT NULL,
        name TEXT NOT NULL,
        version TEXT,
        status INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL,
        started_at INTEGER NOT NULL,
        turn_time INTEGER NOT NULL,
        ahead INTEGER NOT NULL,
        scheduled_at INTEGER,
        completed_at INTEGER,
        custom_status TEXT,
        tags TEXT,
        parent_id TEXT,
        parent_execution TEXT,
        parent_task INTEGER,
        event_count INTEGER NOT NULL,
        rewinding INTEGER NOT NULL
    );
    CREATE INDEX instances_created ON instances (created_at, key);
    CREATE INDEX instances_status ON instances (status, created_at, key);
    CREATE INDEX instances_name ON instances (name, created_at, key);
    CREATE INDEX instances_parent ON instances (parent_id) WHERE parent_id IS NOT NULL;
    CREATE INDEX instances_completed ON instances (completed_at, instance_id) WHERE completed_at IS NOT NULL;

    CREATE TABLE tags (
        name TEXT NOT NULL, value TEXT NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (name, value, key)
    ) WITHOUT ROWID;
    CREATE INDEX tags_key ON tags (key);

    CREATE TABLE payloads (key INTEGER NOT NULL, name TEXT NOT NULL, value, PRIMARY KEY (key, name));

    -- The chunks of a history, one for each turn.  `id` is the instance's key times 2^32 plus the number of the turn:
    -- with one integer as the key, a chunk lies in the table's own tree and needs no index beside it.
    CREATE TABLE history (id INTEGER PRIMARY KEY, events BLOB NOT NULL);

    CREATE TABLE inbox (
        seq INTEGER PRIMARY KEY, key INTEGER NOT NULL, kind INTEGER NOT NULL, execution_id TEXT, event BLOB NOT NULL
    );
    CREATE INDEX inbox_key ON inbox (key);

    CREATE TABLE tasks (
        seq INTEGER PRIMARY KEY,
        nonce TEXT NOT NULL,
        instance_id TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        task_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        version TEXT,
        request BLOB NOT NULL
    );
    CREATE INDEX tasks_execution ON tasks (execution_id);

    -- The leases on activities that a worker with a name has had for a while, by the activity's number.
    CREATE TABLE task_leases (seq INTEGER PRIMARY KEY, lease TEXT NOT NULL, worker TEXT NOT NULL);

    CREATE TABLE timers (
        seq INTEGER PRIMARY KEY,
        due INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        target TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        event BLOB NOT NULL
    );
    CREATE INDEX timers_due ON timers (due, seq);
    CREATE INDEX timers_execution ON timers (execution_id);

    CREATE TABLE entities (
        entity_id TEXT PRIMARY KEY,
        revision TEXT NOT NULL,
        state TEXT,
        modified_at INTEGER NOT NULL,
        lock_section TEXT,
        lock_instance TEXT,
        lock_execution TEXT
    );
    CREATE INDEX entities_locked ON entities (lock_execution) WHERE lock_execution IS NOT NULL;

    CREATE TABLE operations (seq INTEGER PRIMARY KEY, entity_id TEXT NOT NULL, execution_id TEXT, event BLOB NOT NULL);
    CREATE INDEX operations_entity ON operations (entity_id);

    CREATE TABLE lock_requests (
        seq INTEGER PRIMARY KEY,
        section TEXT NOT NULL,
        instance_id TEXT NOT NULL,
        execution_id TEXT NOT NULL,
        entity_ids TEXT NOT NULL
    );

    -- How often the process has ended before an instance's turn was committed: see crash_loops.py.
    CREATE TABLE crashes (instance_id TEXT PRIMARY KEY, turn_id TEXT NOT NULL, count INTEGER NOT NULL) WITHOUT ROWID;
    """,
)

VERSION = len(MIGRATIONS)
"""The schema that this engine reads and writes."""

TABLES_OF_STATE = (
    "instances",
    "tags",
    "payloads",
    "history",
    "inbox",
    "tasks",
    "task_leases",
    "crashes",
    "timers",
    "entities",
    "operations",
    "lock_requests",
)
"""The tables that are emptied when an engine forgets everything."""
