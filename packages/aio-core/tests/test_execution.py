"""What stands in for upstream's context while a workflow's code is not running, or is being closed."""

from datetime import datetime

import pytest

from durabletask_aio.core._upstream import NullContext
from durabletask_aio.core.detached import DetachedContext


def test_a_detached_context_raises_the_error_made_for_the_name():
    detached = DetachedContext(lambda name: LookupError(f"ctx.{name} refused"))
    with pytest.raises(LookupError, match=r"^ctx\.call_activity refused$"):
        detached.call_activity("a")
    with pytest.raises(LookupError, match=r"^ctx\.is_replaying refused$"):
        _ = detached.is_replaying


def test_a_null_context_accepts_calls_that_schedule_and_complete_nothing():
    now = datetime(2026, 1, 1)
    null = NullContext("this-one", now)
    operations = [null.call_activity("a", input=1), null.create_timer(now), null.wait_for_external_event("go")]
    assert not any(operation.is_complete for operation in operations)
    assert len(set(map(id, operations))) == 3
    assert (null.instance_id, null.current_utc_datetime, null.is_replaying) == ("this-one", now, True)
