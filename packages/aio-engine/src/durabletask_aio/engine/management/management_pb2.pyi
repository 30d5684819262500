from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InstanceSummary(_message.Message):
    __slots__ = ("instance_id", "name", "version", "status", "created", "updated", "completed", "scheduled", "custom_status", "tags", "parent_id", "event_count", "execution_id", "child_count", "failure", "result")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_STATUS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    CHILD_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    name: str
    version: str
    status: int
    created: _timestamp_pb2.Timestamp
    updated: _timestamp_pb2.Timestamp
    completed: _timestamp_pb2.Timestamp
    scheduled: _timestamp_pb2.Timestamp
    custom_status: str
    tags: _containers.ScalarMap[str, str]
    parent_id: str
    event_count: int
    execution_id: str
    child_count: int
    failure: str
    result: str
    def __init__(self, instance_id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., status: _Optional[int] = ..., created: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., updated: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., completed: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., scheduled: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., custom_status: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., parent_id: _Optional[str] = ..., event_count: _Optional[int] = ..., execution_id: _Optional[str] = ..., child_count: _Optional[int] = ..., failure: _Optional[str] = ..., result: _Optional[str] = ...) -> None: ...

class SearchInstancesRequest(_message.Message):
    __slots__ = ("statuses", "names", "id_prefix", "id_contains", "tags", "created_from", "created_to", "updated_from", "updated_to", "completed_from", "completed_to", "parent_id", "only_roots", "newest_first", "page_size", "page_token", "text", "with_outcome")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    ID_CONTAINS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    CREATED_FROM_FIELD_NUMBER: _ClassVar[int]
    CREATED_TO_FIELD_NUMBER: _ClassVar[int]
    UPDATED_FROM_FIELD_NUMBER: _ClassVar[int]
    UPDATED_TO_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FROM_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_TO_FIELD_NUMBER: _ClassVar[int]
    PARENT_ID_FIELD_NUMBER: _ClassVar[int]
    ONLY_ROOTS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIRST_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WITH_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedScalarFieldContainer[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    id_prefix: str
    id_contains: str
    tags: _containers.ScalarMap[str, str]
    created_from: _timestamp_pb2.Timestamp
    created_to: _timestamp_pb2.Timestamp
    updated_from: _timestamp_pb2.Timestamp
    updated_to: _timestamp_pb2.Timestamp
    completed_from: _timestamp_pb2.Timestamp
    completed_to: _timestamp_pb2.Timestamp
    parent_id: str
    only_roots: bool
    newest_first: bool
    page_size: int
    page_token: str
    text: str
    with_outcome: bool
    def __init__(self, statuses: _Optional[_Iterable[int]] = ..., names: _Optional[_Iterable[str]] = ..., id_prefix: _Optional[str] = ..., id_contains: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., created_from: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., created_to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., updated_from: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., updated_to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., completed_from: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., completed_to: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., parent_id: _Optional[str] = ..., only_roots: bool = ..., newest_first: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., text: _Optional[str] = ..., with_outcome: bool = ...) -> None: ...

class SearchInstancesResponse(_message.Message):
    __slots__ = ("instances", "next_page_token", "previous_page_token")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceSummary]
    next_page_token: str
    previous_page_token: str
    def __init__(self, instances: _Optional[_Iterable[_Union[InstanceSummary, _Mapping[str, _Any]]]] = ..., next_page_token: _Optional[str] = ..., previous_page_token: _Optional[str] = ...) -> None: ...

class GetOverviewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Overview(_message.Message):
    __slots__ = ("instances", "names", "workers", "path")
    class InstancesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.ScalarMap[int, int]
    names: _containers.RepeatedScalarFieldContainer[str]
    workers: int
    path: str
    def __init__(self, instances: _Optional[_Mapping[int, int]] = ..., names: _Optional[_Iterable[str]] = ..., workers: _Optional[int] = ..., path: _Optional[str] = ...) -> None: ...

class GetInstanceDetailsRequest(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class Pending(_message.Message):
    __slots__ = ("kind", "name", "task_id", "target", "due", "worker", "since")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTIVITY: _ClassVar[Pending.Kind]
        TIMER: _ClassVar[Pending.Kind]
        CHILD: _ClassVar[Pending.Kind]
        LOCK: _ClassVar[Pending.Kind]
        ENTITY: _ClassVar[Pending.Kind]
    ACTIVITY: Pending.Kind
    TIMER: Pending.Kind
    CHILD: Pending.Kind
    LOCK: Pending.Kind
    ENTITY: Pending.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    DUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    kind: Pending.Kind
    name: str
    task_id: int
    target: str
    due: _timestamp_pb2.Timestamp
    worker: str
    since: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[Pending.Kind, str]] = ..., name: _Optional[str] = ..., task_id: _Optional[int] = ..., target: _Optional[str] = ..., due: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., worker: _Optional[str] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ...) -> None: ...

class InstanceDetails(_message.Message):
    __slots__ = ("instance", "pending", "children", "inbox_count", "history_bytes", "worker", "is_queued")
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    CHILDREN_FIELD_NUMBER: _ClassVar[int]
    INBOX_COUNT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    IS_QUEUED_FIELD_NUMBER: _ClassVar[int]
    instance: InstanceSummary
    pending: _containers.RepeatedCompositeFieldContainer[Pending]
    children: _containers.RepeatedCompositeFieldContainer[InstanceSummary]
    inbox_count: int
    history_bytes: int
    worker: str
    is_queued: bool
    def __init__(self, instance: _Optional[_Union[InstanceSummary, _Mapping[str, _Any]]] = ..., pending: _Optional[_Iterable[_Union[Pending, _Mapping[str, _Any]]]] = ..., children: _Optional[_Iterable[_Union[InstanceSummary, _Mapping[str, _Any]]]] = ..., inbox_count: _Optional[int] = ..., history_bytes: _Optional[int] = ..., worker: _Optional[str] = ..., is_queued: bool = ...) -> None: ...

class ForkInstanceRequest(_message.Message):
    __slots__ = ("instance_id", "new_instance_id", "turns", "after_event", "after_step")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    AFTER_EVENT_FIELD_NUMBER: _ClassVar[int]
    AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    new_instance_id: str
    turns: int
    after_event: int
    after_step: str
    def __init__(self, instance_id: _Optional[str] = ..., new_instance_id: _Optional[str] = ..., turns: _Optional[int] = ..., after_event: _Optional[int] = ..., after_step: _Optional[str] = ...) -> None: ...

class ForkInstanceResponse(_message.Message):
    __slots__ = ("instance_id",)
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    def __init__(self, instance_id: _Optional[str] = ...) -> None: ...

class GetEntityDetailsRequest(_message.Message):
    __slots__ = ("entity_id",)
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    entity_id: str
    def __init__(self, entity_id: _Optional[str] = ...) -> None: ...

class EntityDetails(_message.Message):
    __slots__ = ("entity_id", "state", "modified", "locked_by", "critical_section_id", "operations", "waiting")
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_FIELD_NUMBER: _ClassVar[int]
    LOCKED_BY_FIELD_NUMBER: _ClassVar[int]
    CRITICAL_SECTION_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    entity_id: str
    state: str
    modified: _timestamp_pb2.Timestamp
    locked_by: str
    critical_section_id: str
    operations: _containers.RepeatedScalarFieldContainer[str]
    waiting: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entity_id: _Optional[str] = ..., state: _Optional[str] = ..., modified: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., locked_by: _Optional[str] = ..., critical_section_id: _Optional[str] = ..., operations: _Optional[_Iterable[str]] = ..., waiting: _Optional[_Iterable[str]] = ...) -> None: ...

class GetStatisticsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("path", "durability", "version", "started", "instances", "entities", "queued", "running", "timers", "workers", "file_bytes", "free_bytes", "largest", "retention", "commands", "commits")
    class InstancesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    class QueuedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class RunningEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    TIMERS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    path: str
    durability: str
    version: str
    started: _timestamp_pb2.Timestamp
    instances: _containers.ScalarMap[int, int]
    entities: int
    queued: _containers.ScalarMap[str, int]
    running: _containers.ScalarMap[str, int]
    timers: int
    workers: _containers.RepeatedCompositeFieldContainer[WorkerInfo]
    file_bytes: int
    free_bytes: int
    largest: _containers.RepeatedCompositeFieldContainer[InstanceSummary]
    retention: Retention
    commands: int
    commits: int
    def __init__(self, path: _Optional[str] = ..., durability: _Optional[str] = ..., version: _Optional[str] = ..., started: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., instances: _Optional[_Mapping[int, int]] = ..., entities: _Optional[int] = ..., queued: _Optional[_Mapping[str, int]] = ..., running: _Optional[_Mapping[str, int]] = ..., timers: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[WorkerInfo, _Mapping[str, _Any]]]] = ..., file_bytes: _Optional[int] = ..., free_bytes: _Optional[int] = ..., largest: _Optional[_Iterable[_Union[InstanceSummary, _Mapping[str, _Any]]]] = ..., retention: _Optional[_Union[Retention, _Mapping[str, _Any]]] = ..., commands: _Optional[int] = ..., commits: _Optional[int] = ...) -> None: ...

class WorkerInfo(_message.Message):
    __slots__ = ("name", "peer", "connected", "held", "limits")
    class HeldEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    name: str
    peer: str
    connected: _timestamp_pb2.Timestamp
    held: _containers.ScalarMap[str, int]
    limits: _containers.ScalarMap[str, int]
    def __init__(self, name: _Optional[str] = ..., peer: _Optional[str] = ..., connected: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., held: _Optional[_Mapping[str, int]] = ..., limits: _Optional[_Mapping[str, int]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("target",)
    TARGET_FIELD_NUMBER: _ClassVar[int]
    target: str
    def __init__(self, target: _Optional[str] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class VacuumRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VacuumResponse(_message.Message):
    __slots__ = ("bytes_before", "bytes_after")
    BYTES_BEFORE_FIELD_NUMBER: _ClassVar[int]
    BYTES_AFTER_FIELD_NUMBER: _ClassVar[int]
    bytes_before: int
    bytes_after: int
    def __init__(self, bytes_before: _Optional[int] = ..., bytes_after: _Optional[int] = ...) -> None: ...

class PurgeOlderRequest(_message.Message):
    __slots__ = ("age", "statuses", "dry_run")
    AGE_FIELD_NUMBER: _ClassVar[int]
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    age: _duration_pb2.Duration
    statuses: _containers.RepeatedScalarFieldContainer[int]
    dry_run: bool
    def __init__(self, age: _Optional[_Union[_duration_pb2.Duration, _Mapping[str, _Any]]] = ..., statuses: _Optional[_Iterable[int]] = ..., dry_run: bool = ...) -> None: ...

class PurgeOlderResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class Retention(_message.Message):
    __slots__ = ("age",)
    AGE_FIELD_NUMBER: _ClassVar[int]
    age: _duration_pb2.Duration
    def __init__(self, age: _Optional[_Union[_duration_pb2.Duration, _Mapping[str, _Any]]] = ...) -> None: ...

class SetRetentionRequest(_message.Message):
    __slots__ = ("age",)
    AGE_FIELD_NUMBER: _ClassVar[int]
    age: _duration_pb2.Duration
    def __init__(self, age: _Optional[_Union[_duration_pb2.Duration, _Mapping[str, _Any]]] = ...) -> None: ...
