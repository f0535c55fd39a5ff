"""How lethe.toml describes a provider that speaks plain HTTP, and what can be wrong with that. Pure."""

import re
from typing import Any, Literal

import msgspec

from providers.base import Model, Part
from providers.templates import check_template, is_picture, names_in

Words = tuple[str, ...]

_AUTH = re.compile(r"bearer|none|header:[A-Za-z0-9-]+")
_HEADER = re.compile(r"accept|accept-language|prefer|x-[a-z0-9-]+|[a-z0-9-]+-(version|beta)", re.IGNORECASE)
_IDENTIFYING = re.compile(r"auth|key|token|secret|cookie|forward|real-ip|user|client", re.IGNORECASE)
_FIELD = re.compile(r"\$images?[0-9]*")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.options]`: where the secret goes (bearer, header:NAME, none), and what tells that it is up."""

    auth: str = "bearer"
    health_path: str = ""

    def headers(self, secret: str) -> dict[str, str]:
        """Show the secret as the provider wants it."""
        if self.auth == "none" or not secret:
            return {}
        return {self.auth.partition(":")[2]: secret} if ":" in self.auth else {"Authorization": f"Bearer {secret}"}

    def fault(self, secret: str) -> str:
        """Say what is wrong; empty where nothing is."""
        if not _AUTH.fullmatch(self.auth):
            return "auth has to be bearer, header:NAME or none"
        if self.auth == "none" and secret:
            return 'a secret is there, and auth = "none" does not send it'
        return "" if secret or self.auth == "none" else 'secret is missing; or say auth = "none"'


class Errors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Words that tell why something failed, sought without regard to case at `pointer`, or in the whole answer."""

    pointer: str = ""
    rejected: Words = ()
    invalid: Words = ()
    payment: Words = ()
    overloaded: Words = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[provider.NAME.operation.OPERATION.options]`: how an operation is ordered, and followed to its end."""

    path: str
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    content: Literal["json", "multipart"] = "json"
    pictures: Literal["data_uri", "base64"] = "data_uri"
    headers: dict[str, str] = {}
    id: str = ""
    """Pointer to the attempt's id; without one the order itself answers with the result."""
    state: str = ""
    """Pointer to its state; without one 202 means that it goes on."""
    queued: Words = ()
    done: Words = ()
    failed: Words = ()
    canceled: Words = ()
    gone: Words = ()
    """States of an attempt that was deleted, where it does not answer 404."""
    poll_path: str = ""
    poll_after_s: float = 1.0
    result_path: str = ""
    """Where the result lies, if not in the answer to the poll."""
    cancel_path: str = ""
    cancel_method: Literal["POST", "PUT", "DELETE"] = "POST"
    delete_path: str = ""
    delete_method: Literal["DELETE", "POST"] = "DELETE"
    deleted: tuple[Part, ...] = ()
    """What goes away with `delete_path`."""
    errors: Errors = Errors()

    def fault(self, model: Model) -> str:
        """Say what is wrong; empty where nothing is."""
        return (
            check_template(model)
            or _path_fault(self)
            or _pointer_fault(self, model)
            or _header_fault(self)
            or _following_fault(self)
            or _form_fault(self, model.input)
        )


def _path_fault(endpoint: Endpoint) -> str:
    followed = {
        "poll_path": endpoint.poll_path,
        "result_path": endpoint.result_path,
        "cancel_path": endpoint.cancel_path,
        "delete_path": endpoint.delete_path,
    }
    for name, path in {"path": endpoint.path, **followed}.items():
        if path and (not path.startswith("/") or path.startswith("//")):
            return f"{name} has to be a path below base_url, and to start with /"
    without = next((name for name, path in followed.items() if path and "{id}" not in path), "")
    return f"{without} has to hold {{id}}" if without else ""


def _pointer_fault(endpoint: Endpoint, model: Model) -> str:
    pointers = {
        "output": model.output,
        "id": endpoint.id,
        "state": endpoint.state,
        "errors.pointer": endpoint.errors.pointer,
    }
    wrong = next((name for name, pointer in pointers.items() if pointer and not pointer.startswith("/")), "")
    return f"{wrong} has to be a JSON pointer, and to start with /" if wrong else ""


def _header_fault(endpoint: Endpoint) -> str:
    for name in endpoint.headers:
        if not _HEADER.fullmatch(name) or _IDENTIFYING.search(name):
            return f"headers: {name} is not sent; credentials are the provider's secret, and nobody is named"
    return ""


def _following_fault(endpoint: Endpoint) -> str:
    if bool(endpoint.id) != bool(endpoint.poll_path):
        return "id and poll_path belong together"
    if not endpoint.id and (endpoint.result_path or endpoint.cancel_path or endpoint.delete_path or endpoint.state):
        return "what is followed needs id and poll_path"
    if bool(endpoint.state) != bool(endpoint.done):
        return "state and done belong together"
    if bool(endpoint.delete_path) != bool(endpoint.deleted):
        return "delete_path and deleted belong together: say which of upload, output, record it deletes"
    return "" if endpoint.poll_after_s > 0 else "poll_after_s has to be more than 0"


def _form_fault(endpoint: Endpoint, template: dict[str, Any]) -> str:
    if endpoint.content == "json":
        return ""
    deep = [
        name
        for name, part in template.items()
        if any(is_picture(found) for found in names_in(part)) and not (isinstance(part, str) and _FIELD.match(part))
    ]
    return f"{deep[0]}: in a form a picture is a field of its own" if deep else ""
