"""Everything podlab raises on purpose, drawn as a tree.

    PodlabError                     what happened, and what to do next (`hint`)
    ├── BadArgument                 a command line that cannot be carried out as written      exit 2
    ├── BadSettings                 config.toml or an environment variable is wrong
    ├── BadSecret                   a secret is missing, malformed or kept unsafely
    ├── StateDamaged                a file of podlab's own cannot be trusted, read or written
    ├── NotFound                    no pod, model, endpoint, job or file of that name
    ├── AlreadyExists               that name is taken
    ├── Refused                     a question was answered with no, or nobody could answer it
    ├── TransportError              the way to a pod
    │   ├── Unreachable             no connection could be made
    │   ├── LinkLost                the connection ended while something was under way
    │   ├── AuthenticationFailed    the pod did not accept any of our keys
    │   ├── HostKeyUnknown          first contact: nobody has vouched for this host key yet
    │   ├── HostKeyChanged          the pod shows another key than the pinned one
    │   ├── CommandFailed           a command ended with another status than 0
    │   ├── CommandTimeout          a command outlived its deadline
    │   └── TransferFailed          a file did not arrive whole
    ├── KeeperError                 the background process did not do its part
    ├── SupervisorError             the pod's own side answered with an error, or not in its protocol
    ├── EngineError                 a model server
    │   ├── EngineUnavailable       it cannot run there: no build, no backend, no Python
    │   ├── EngineCrashed           it ended by itself
    │   └── EngineNotReady          it did not get ready in time
    ├── HttpError                   an HTTP answer that is not a success
    ├── ProviderError               a company that rents pods out
    │   ├── OutOfStock              no such machine is free there now
    │   ├── OutOfFunds              the account has no money for it
    │   ├── KeyRefused              the key is not accepted
    │   ├── NotAllowed              the key may not do this
    │   ├── WrongState              the pod is in no state for this
    │   ├── BadOrder                the provider does not accept what was asked, and never will
    │   ├── RateLimited             too many requests; says when to come again
    │   ├── ApiRetired              this version of the provider's interface is gone
    │   ├── ProviderUnavailable     no usable answer, and nothing was changed by asking
    │   └── OutcomeUnknown          something was asked for, and whether it was done is not known
    ├── RentalFailed                a rented pod is not what it should be; carries its ids
    ├── GatedRepo                   the hub gives a model only to accounts that accepted its terms
    └── ChatError                   a conversation
        └── StreamBroken            the answer stopped before its end; carries what had arrived

Each class says what a program may want to read off it. In a notebook an error shows as one to three lines
(`_render_traceback_`), and the cell still fails; `show_tracebacks(True)` brings the whole traceback back.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

_tracebacks = False
_redact: Callable[[str], str] = str


def show_tracebacks(on: bool) -> None:
    """Choose between the short form of errors in a notebook (default) and full tracebacks."""
    global _tracebacks
    _tracebacks = on


def redact_with(redact: Callable[[str], str]) -> None:
    """Have `redact` take secrets out of all that errors show. Whoever reads secrets calls this before the first one."""
    global _redact
    _redact = redact


def tracebacks_shown() -> bool:
    """Whether full tracebacks were asked for."""
    return _tracebacks


class PodlabError(Exception):
    """What happened (`message`), and what to do next (`hint`, may be empty)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def lines(self) -> list[str]:
        """One to three lines for a person: what happened, evidence if there is any, what to do next."""
        return [self.message, *([self.hint] if self.hint else [])]

    def _render_traceback_(self) -> list[str]:
        # IPython shows this instead of a traceback and still sends an `error` output, so headless runs fail.
        if _tracebacks:  # it quotes the messages of causes, too, which others wrote
            shown = _redact("".join(traceback.format_exception(self)))
            return [_one_line(line) for line in shown.split("\n")]
        first, *rest = (_one_line(_redact(line)) for line in self.lines())
        return [f"{type(self).__name__}: {first}", *rest][:3]

    def __reduce__(self) -> tuple[Callable[..., PodlabError], tuple[Any, ...]]:
        # An error crosses processes (a pool's worker) whatever its __init__ takes.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[PodlabError], args: tuple[Any, ...], state: dict[str, Any]) -> PodlabError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def _one_line(text: str) -> str:
    """Text that may have come from a pod or a server, without line ends and terminal escapes."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


class BadArgument(PodlabError):
    """A command line, a name or a value that cannot be carried out as written."""

    exit_code = 2


class BadSettings(PodlabError):
    """config.toml or an environment variable holds something podlab cannot use."""


class BadSecret(PodlabError):
    """A secret is missing, malformed, or kept where others can read it."""


class StateDamaged(PodlabError):
    """A file of podlab's own cannot be trusted, read or written."""


class NotFound(PodlabError):
    """No pod, model, endpoint, job or file of that name."""


class AlreadyExists(PodlabError):
    """That name is taken."""


class Refused(PodlabError):
    """A question was answered with no, or there was nobody to answer it."""


class TransportError(PodlabError):
    """The way to a pod failed. `pod` names it."""

    def __init__(self, message: str, *, pod: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pod = pod


class Unreachable(TransportError):
    """No connection could be made: wrong address, no network, nothing listening, or no answer in time."""


class LinkLost(TransportError):
    """The connection ended while something was under way; what became of it is unknown until asked again."""


class AuthenticationFailed(TransportError):
    """The pod accepted none of the keys that were offered."""


class HostKeyUnknown(TransportError):
    """First contact. `key_type`, `key_base64` and `fingerprint` ("SHA256:...") are what the pod showed."""

    def __init__(self, pod: str, host: str, key_type: str, key_base64: str, fingerprint: str) -> None:
        super().__init__(
            f"The host key of pod {pod!r} ({host}) is not known yet: {key_type} {fingerprint}",
            pod=pod,
            hint=f"Compare it with what the machine itself says, then repeat with --host-key {fingerprint}",
        )
        self.host, self.key_type, self.key_base64, self.fingerprint = host, key_type, key_base64, fingerprint


class HostKeyChanged(TransportError):
    """The pod shows another host key than the pinned one: a reinstalled machine, or somebody in between."""

    def __init__(self, pod: str, host: str, expected: str, shown: str) -> None:
        super().__init__(
            f"Pod {pod!r} ({host}) shows host key {shown}, but {expected} is pinned. Nothing was sent.",
            pod=pod,
            hint=f"If the machine was reinstalled: podlab pod remove {pod}, and add it again. If not, somebody may be "
            "in between.",
        )
        self.host, self.expected, self.shown = host, expected, shown


class CommandFailed(TransportError):
    """A command ended with another status than 0. Carries `argv`, `status`, `stdout` and `stderr` (bytes)."""

    def __init__(self, pod: str, argv: tuple[str, ...], status: int, stdout: bytes = b"", stderr: bytes = b"") -> None:
        last = stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        program = argv[0] if argv else "A command"
        super().__init__(f"{program} on pod {pod!r} ended with status {status}: {last[0][:300]}", pod=pod)
        self.argv, self.status, self.stdout, self.stderr = argv, status, stdout, stderr


class CommandTimeout(TransportError):
    """A command outlived its deadline. Carries `argv` and what had arrived (`stdout`, `stderr`, bytes)."""

    def __init__(
        self, pod: str, argv: tuple[str, ...], timeout_s: float, stdout: bytes = b"", stderr: bytes = b""
    ) -> None:
        super().__init__(f"{''.join(argv[:1])} on pod {pod!r} did not end within {timeout_s:g} s", pod=pod)
        self.argv, self.timeout_s, self.stdout, self.stderr = argv, timeout_s, stdout, stderr


class TransferFailed(TransportError):
    """A file did not arrive whole, or may not be written where it should go. The old file is still there."""


class KeeperError(PodlabError):
    """The background process that keeps connections did not do its part."""


class SupervisorError(PodlabError):
    """The pod's own side of podlab answered with an error, or not in its protocol."""


class EngineError(PodlabError):
    """A model server."""


class EngineUnavailable(EngineError):
    """The engine cannot run there: no build for the machine, no such backend, no Python it accepts."""


class EngineCrashed(EngineError):
    """The engine ended by itself. `cause` is one of engines.base.Cause, `status` its exit status, `log` the decisive
    lines."""

    def __init__(
        self, message: str, *, cause: str = "unknown", status: int | None = None, log: tuple[str, ...] = (),
        hint: str = "",
    ) -> None:  # fmt: skip
        super().__init__(message, hint=hint)
        self.cause, self.status, self.log = cause, status, log

    def lines(self) -> list[str]:
        return [self.message, *self.log[-1:], *([self.hint] if self.hint else [])]


class EngineNotReady(EngineError):
    """The engine is still there but did not get ready in time."""


class HttpError(PodlabError):
    """An HTTP answer that is not a success. `status` is its code (0: no answer), `body` the start of what it said.

    `sent` is False where no connection could be made: nobody has begun to work on the request. `retry_after` is the
    header of that name, as it came.
    """

    def __init__(
        self, message: str, *, status: int = 0, body: str = "", sent: bool = True, retry_after: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.body, self.sent, self.retry_after = status, body, sent, retry_after


class ProviderError(PodlabError):
    """A company that rents pods out said no, or nothing. `status` is its HTTP status (0: no answer)."""

    def __init__(self, message: str, *, provider: str = "", status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.provider, self.status = provider, status


class OutOfStock(ProviderError):
    """No such machine is free there now, or the list of data centres is too narrow: the same words mean both."""


class OutOfFunds(ProviderError):
    """The account's balance or its spending limit does not allow it. Trying again changes nothing."""


class KeyRefused(ProviderError):
    """The provider does not accept the key."""


class NotAllowed(ProviderError):
    """The key is accepted and may not do this: its scope, or a pool of machines it has no part in."""


class WrongState(ProviderError):
    """The pod is in no state for what was asked: it changed meanwhile, or it is locked."""


class BadOrder(ProviderError):
    """The provider does not accept what was asked as it is. `fields` names what is wrong, as it says it."""

    def __init__(
        self, message: str, *, provider: str = "", status: int = 0, fields: tuple[str, ...] = (), hint: str = ""
    ) -> None:
        super().__init__(message, provider=provider, status=status, hint=hint)
        self.fields = fields


class RateLimited(ProviderError):
    """Too many requests. `retry_after_s` is how long the provider wants to be left alone."""

    def __init__(
        self, message: str, *, provider: str = "", status: int = 429, retry_after_s: float = 60.0, hint: str = ""
    ) -> None:
        super().__init__(message, provider=provider, status=status, hint=hint)
        self.retry_after_s = retry_after_s


class ApiRetired(ProviderError):
    """This version of the provider's interface is gone: a newer podlab is needed."""


class ProviderUnavailable(ProviderError):
    """No usable answer: none at all, a late one, a server's error, or something that is not its protocol.

    Raised by reads only, and by writes that certainly did not reach the provider.
    """


class OutcomeUnknown(ProviderError):
    """A write was sent and its answer never came, or made no sense. It may have been carried out: look before
    asking again."""


class RentalFailed(PodlabError):
    """A rented pod is not what it should be. `launch` and `rental_id` say which; `ended`: it is certainly
    gone."""

    def __init__(
        self, message: str, *, launch: str, rental_id: str | None = None, ended: bool = False, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.launch, self.rental_id, self.ended = launch, rental_id, ended


class GatedRepo(PodlabError):
    """The hub gives a model only to accounts that accepted its terms, which stand on its `page`."""

    def __init__(self, message: str, *, page: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.page = page


class ChatError(PodlabError):
    """A conversation could not go on."""


class StreamBroken(ChatError):
    """The answer stopped before its end. `partial` is what had arrived; `sent` is as in HttpError."""

    def __init__(self, message: str, *, partial: str = "", sent: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.partial, self.sent = partial, sent
