"""Data converters: `PydanticDataConverter` and `CattrsDataConverter`, each with an extra of its name.

The implementation is in `durabletask_aio.core`; this file is its public import path.
"""

from typing import TYPE_CHECKING

from durabletask_aio.core.data import PayloadTypeError
from durabletask_aio.core.data import load as _load

if TYPE_CHECKING:
    from durabletask_aio.core.cattrs_converter import CattrsDataConverter as CattrsDataConverter
    from durabletask_aio.core.pydantic_converter import PydanticDataConverter as PydanticDataConverter

__all__ = ["PayloadTypeError"]


def __getattr__(name: str) -> object:
    # Imported on first use, and not in `__all__`: each needs a library of its own.
    return _load(name, __name__)
