"""Actions: each is a form of the page, answered with a sentence that says what was done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from durabletask_aio.core.hosting import CANCEL_EVENT, cancel_payload
from durabletask_aio.engine._upstream import pb
from durabletask_aio.engine.web.errors import PageError
from durabletask_aio.engine.web.site import Site, check_json, url_for

Form = Mapping[str, str]


class Actions:
    """Carries actions out.  Each takes a form and returns what was done, and the id of the instance to show next."""

    def __init__(self, site: Site) -> None:
        """Use a site.

        Args:
            site: what all pages share.
        """
        self._site = site
        self.all: dict[str, Callable[[Form], tuple[str, str]]] = {
            "start": self.start,
            "raise-event": self.raise_event,
            "suspend": self.suspend,
            "resume": self.resume,
            "cancel": self.cancel,
            "terminate": self.terminate,
            "rewind": self.rewind,
            "restart": self.restart,
            "fork": self.fork,
            "purge": self.purge,
        }
        """By the last part of their addresses."""

    def endpoint(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers an action's requests."""
        action = self.all[name]

        async def answer(request: Request) -> Response:
            form = await self._site.read_form(request)
            text, instance_id = await run_in_threadpool(action, form)
            location = url_for(request, "/instance", id=instance_id) if instance_id else url_for(request, "/")
            return self._site.done(request, text, location)

        return answer

    def start(self, form: Form) -> tuple[str, str]:
        """Start an instance."""
        name = form.get("name", "").strip()
        if not name:
            raise PageError(400, "No name", "Enter the name of the orchestrator to start.")
        request = pb.CreateInstanceRequest(name=name, instanceId=form.get("instance_id", "").strip())
        value = check_json(form.get("input", ""), "The input")
        if value is not None:
            request.input.value = value
        version = form.get("version", "").strip()
        if version:
            request.version.value = version
        for line in form.get("tags", "").replace(",", "\n").splitlines():
            if line.strip():
                tag, separator, text = line.partition("=")
                if not separator:
                    raise PageError(400, "Not a tag", f"Write each tag as name=value, and not {line.strip()!r}.")
                request.tags[tag.strip()] = text.strip()
        instance_id: str = self._site.backend.call("StartInstance", request).instanceId
        return f"Started {instance_id}.", instance_id

    def raise_event(self, form: Form) -> tuple[str, str]:
        """Give an instance an external event."""
        instance_id, name = _id(form), form.get("name", "").strip()
        if not name:
            raise PageError(400, "No name", "Enter the name of the event.")
        request = pb.RaiseEventRequest(instanceId=instance_id, name=name)
        data = check_json(form.get("data", ""), "The event's data")
        if data is not None:
            request.input.value = data
        self._site.backend.call("RaiseEvent", request)
        return f"Sent the event {name}.", instance_id

    def suspend(self, form: Form) -> tuple[str, str]:
        """Suspend an instance."""
        request = pb.SuspendRequest(instanceId=_id(form))
        _set_reason(request, form)
        self._site.backend.call("SuspendInstance", request)
        return "Asked it to suspend. What arrives is kept until it is resumed.", _id(form)

    def resume(self, form: Form) -> tuple[str, str]:
        """Resume an instance."""
        request = pb.ResumeRequest(instanceId=_id(form))
        _set_reason(request, form)
        self._site.backend.call("ResumeInstance", request)
        return "Resumed.", _id(form)

    def cancel(self, form: Form) -> tuple[str, str]:
        """Ask an instance to cancel itself."""
        instance_id = _id(form)
        request = pb.RaiseEventRequest(instanceId=instance_id, name=CANCEL_EVENT)
        reason = form.get("reason", "").strip()
        if reason:
            request.input.value = json.dumps(cancel_payload(reason))
        self._site.backend.call("RaiseEvent", request)
        return "Asked it to cancel itself. It can clean up before it ends.", instance_id

    def terminate(self, form: Form) -> tuple[str, str]:
        """Terminate an instance."""
        is_recursive = "recursive" in form
        request = pb.TerminateRequest(instanceId=_id(form), recursive=is_recursive)
        reason = form.get("reason", "").strip()
        if reason:
            # Clients decode the output of an instance.
            request.output.value = json.dumps(reason)
        self._site.backend.call("TerminateInstance", request)
        return f"Asked it {'and its children ' if is_recursive else ''}to terminate.", _id(form)

    def rewind(self, form: Form) -> tuple[str, str]:
        """Rewind a failed instance."""
        request = pb.RewindInstanceRequest(instanceId=_id(form))
        _set_reason(request, form)
        self._site.backend.call("RewindInstance", request)
        return "Rewound: it runs again from before its failure.", _id(form)

    def restart(self, form: Form) -> tuple[str, str]:
        """Run an instance that has ended once more."""
        request = pb.RestartInstanceRequest(instanceId=_id(form), restartWithNewInstanceId="new_id" in form)
        instance_id: str = self._site.backend.call("RestartInstance", request).instanceId
        return f"Started {instance_id} with the input of {_id(form)}.", instance_id

    def fork(self, form: Form) -> tuple[str, str]:
        """Start a new instance from the beginning of another one's history: its first turns, or up to an event."""
        new_id, management = form.get("new_instance_id", "").strip(), self._site.backend.management
        if "after" in form:
            after = _number(form, "after", "the number of the event")
            instance_id = management.fork(_id(form), new_id, after=after)
            return f"Started {instance_id} from {_id(form)}, up to event {after}.", instance_id
        turns = _number(form, "turns", "how many turns to keep") if form.get("turns", "").strip() else 0
        instance_id = management.fork(_id(form), new_id, turns=turns)
        return f"Started {instance_id} from the first turns of {_id(form)}.", instance_id

    def purge(self, form: Form) -> tuple[str, str]:
        """Delete an instance that has ended."""
        request = pb.PurgeInstancesRequest(instanceId=_id(form), recursive="recursive" in form)
        count: int = self._site.backend.call("PurgeInstances", request).deletedInstanceCount
        if not count:
            raise PageError(409, "Not deleted", "Only an instance that has ended can be deleted.")
        return ("Deleted the instance." if count == 1 else f"Deleted {count} instances."), ""


def _id(form: Form) -> str:
    instance_id = form.get("id", "")
    if not instance_id:
        raise PageError(400, "Which one?", "The form has no instance id.")
    return instance_id


def _set_reason(request: pb.SuspendRequest | pb.ResumeRequest | pb.RewindInstanceRequest, form: Form) -> None:
    reason = form.get("reason", "").strip()
    if reason:
        request.reason.value = reason


def _number(form: Form, name: str, what: str) -> int:
    text = form.get(name, "").strip()
    if not text.isdecimal() or len(text) > 9:
        raise PageError(400, "Not a number", f"Enter {what}, and not {text!r}.")
    return int(text)
