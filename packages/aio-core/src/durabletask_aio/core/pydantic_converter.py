"""`PydanticDataConverter`: payloads are read with pydantic, the extra `pydantic`."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from typing import Any, cast

import pydantic

from durabletask_aio.core.converters import TypedDataConverter, cached_by_type, kind_of, writes_itself

_CONFIG = pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
"""For types without a configuration of their own, which models have."""

_MAX_PROBLEMS = 5
"""Problems of one payload that a message lists."""


class PydanticDataConverter(TypedDataConverter):
    """A data converter for pydantic's models, for dataclasses and for the types of the standard library.

    For `data_converter=` of workers, clients and test environments; all of a hub need the same.  The page "Data" of the
    documentation has the types and their JSON form.

    Example:
        ```python
        converter = PydanticDataConverter()
        worker = TaskHubGrpcWorker(data_converter=converter)
        client = TaskHubGrpcClient(data_converter=converter)
        ```

    Args:
        lenient: whether a payload that does not fit the type is left as plain data, as upstream's converter does, where
            the default is to raise `PayloadTypeError`.
    """

    __module__ = "durabletask.aio.data"

    def __init__(self, *, lenient: bool = False) -> None:
        super().__init__(lenient=lenient)
        self._adapter = cached_by_type(_new_adapter)

    def _encode(self, value: Any) -> Any:
        serializer = getattr(kind_of(value), "__pydantic_serializer__", None)
        if serializer is None or writes_itself(value):
            return super()._encode(value)
        # A model, or a dataclass of pydantic's, is written as it says itself, except for the order of its sets.
        options = {"by_alias": True, "round_trip": True}
        document = serializer.to_python(value, mode="json", **options)
        return self._with_sets_in_order(serializer.to_python(value, mode="python", **options), document)

    def _with_sets_in_order(self, value: object, document: object) -> object:
        unchanged: object = document
        if isinstance(value, set | frozenset) and isinstance(document, list):
            return self.in_order(cast("list[object]", document))
        if isinstance(value, Mapping) and isinstance(document, dict):
            parts, written = cast("Mapping[object, object]", value), cast("dict[object, object]", document)
            if len(parts) == len(written):
                pairs = zip(parts.values(), written.items(), strict=True)
                return {key: self._with_sets_in_order(part, each) for part, (key, each) in pairs}
        if isinstance(value, list | tuple) and isinstance(document, list):
            several, listed = cast("list[object]", value), cast("list[object]", document)
            if len(several) == len(listed):
                return [self._with_sets_in_order(part, each) for part, each in zip(several, listed, strict=True)]
        return unchanged

    def _supports(self, target_type: Any) -> bool:
        return self._adapter(target_type) is not None

    def _decode(self, document: Any, target_type: Any) -> Any:
        (value,) = self._adapter(target_type).validate_json(json.dumps([document]))
        return value

    def _describe(self, error: Exception) -> str:
        if not isinstance(error, pydantic.ValidationError):
            return super()._describe(error)
        found = error.errors(include_url=False, include_context=False, include_input=False)
        shown = [f"{'.'.join(map(str, each['loc'][1:])) or 'it'}: {each['msg']}" for each in found[:_MAX_PROBLEMS]]
        return "; ".join([*shown, *(["..."] if len(found) > _MAX_PROBLEMS else [])])


def _new_adapter(target_type: Any) -> Any:
    """Return the adapter of pydantic for a type, `None` if pydantic has no schema for it.

    In a tuple, because a model itself cannot be given a configuration, nor a dataclass.
    """
    try:
        wrapped: Any = types.GenericAlias(tuple, (target_type,))
        return cast(Any, pydantic.TypeAdapter)(wrapped, config=_CONFIG)
    except (pydantic.errors.PydanticUserError, NameError, TypeError):
        return None
