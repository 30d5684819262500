"""Entities: async ones are refused, and an exception of an operation never ends the worker."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from durabletask_aio.core import WorkflowValidationError
from durabletask_aio.core.hosting import activity_failure_details, function_name, is_recordable, message_of
from durabletask_aio.worker import _upstream
from durabletask_aio.worker._upstream import DurableEntity, pb
from durabletask_aio.worker.activity_functions import is_async
from durabletask_aio.worker.foreign_engines import Answers, StubWith


def check_entity(function: Any) -> None:
    """Refuse an entity with an async operation, which upstream would not await.

    Raises:
        WorkflowValidationError: With the name of the operation.
    """
    async_operation = None
    if inspect.isclass(function) and issubclass(function, DurableEntity):
        async_operation = next(
            (
                f"{function.__name__}.{name}"
                for name, member in inspect.getmembers(function)
                if not name.startswith("_") and is_async(member)
            ),
            None,
        )
    elif is_async(function):
        async_operation = function_name(function)
    if async_operation is not None:
        name = async_operation.rpartition(".")[2]
        raise WorkflowValidationError(
            f"entity operations cannot be async: {async_operation} is a coroutine function, and an entity holds its "
            "lock while it runs\n"
            f"  wrong: async def {name}(...): ...\n"
            f"  right: def {name}(...): ...    # await in an activity, and signal the entity after"
        )


class _OperationFailure(Exception):
    """Carries an exception that upstream would not survive to where it becomes the failure of one operation."""

    def __init__(self, original: BaseException) -> None:
        super().__init__(f"{type(original).__name__}: {message_of(original)}")
        self.original = original


class _Executor(_upstream.EntityExecutor):
    def execute(self, *args: Any, **keywords: Any) -> str | None:
        try:
            return super().execute(*args, **keywords)
        except BaseException as error:
            if isinstance(error, Exception) and is_recordable(error):
                raise
            raise _OperationFailure(error) from error


def _failure_details(error: Exception, provider: Any, logger: logging.Logger) -> pb.TaskFailureDetails:
    original = error.original if isinstance(error, _OperationFailure) else error
    return activity_failure_details(original, provider, logger)


def entity_execution(answers: Answers) -> Callable[..., Any]:
    """Return upstream's execution of entities, in which `SystemExit` fails one operation and not the worker.

    A result that the engine refuses because of its size fails all operations of the batch.
    """
    execute = _upstream.entity_execution(_Executor, new_failure_details=_failure_details)

    def execute_batch(worker: Any, request: Any, stub: Any, token: Any) -> Any:
        def complete(result: pb.EntityBatchResult) -> Any:
            return answers.complete_entity(stub, result, request)

        return execute(worker, request, StubWith(stub, CompleteEntityTask=complete), token)

    return execute_batch
