"""Guards around a job: what it must not reach, and what it must leave as it was."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeVar

import torch

from ilubench.errors import DataError, did_you_mean

__all__ = ["DeclaredOnly", "no_network", "one_thread", "read_traces"]

Data = TypeVar("Data")


class DeclaredOnly(Mapping[str, Data]):
    """Data as a run hands them over, by name, except that it notices what is asked of them.

    Args:
        declared: name -> data.
        where: what declares them, for messages.

    Attributes:
        read: names that were asked for and are there.
        undeclared: names that were asked for and are not, also by `in` and `get`.
    """

    def __init__(self, declared: Mapping[str, Data], where: str = "environment_names()") -> None:
        """Hold what is declared."""
        self._declared, self._where = declared, where
        self.read: set[str] = set()
        self.undeclared: set[str] = set()

    def __getitem__(self, name: str) -> Data:
        """Return the data of a name.

        Raises:
            DataError: it was not declared.
        """
        if name not in self:
            raise DataError(
                f"{name!r} was not declared, so a run does not hand it over; name it in "
                f"{self._where}, or {did_you_mean(name, self._declared)}"
            )
        self.read.add(name)
        return self._declared[name]

    def __contains__(self, name: object) -> bool:
        """Whether a name was declared; the question is noticed."""
        if name in self._declared:
            return True
        self.undeclared.add(str(name))
        return False

    def __iter__(self) -> Iterator[str]:
        """Iterate over the declared names."""
        return iter(self._declared)

    def __len__(self) -> int:
        """Return the number of declared environments."""
        return len(self._declared)


@contextlib.contextmanager
def no_network() -> Iterator[list[str]]:
    """Refuse every connection and name look-up for a while; sockets of this machine's files work.

    Yields:
        What was tried, in words: it grows as it happens, also when the refusal is caught.
    """
    tried: list[str] = []

    def refuse(what: object) -> NoReturn:
        tried.append(str(what))
        raise OSError(f"no network in this test: {what}")

    kept = (socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo)
    unix = getattr(socket, "AF_UNIX", None)

    def connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401
        if self.family != unix:
            refuse(address)
        kept[0](self, address)

    def connect_ex(self: socket.socket, address: Any) -> int:  # noqa: ANN401
        if self.family != unix:
            refuse(address)
        return kept[1](self, address)

    def look_up(host: object, *_args: object, **_named: object) -> NoReturn:
        refuse(host)

    patched: Any = socket
    patched.socket.connect, patched.socket.connect_ex = connect, connect_ex
    patched.getaddrinfo = look_up
    try:
        yield tried
    finally:
        patched.socket.connect, patched.socket.connect_ex, patched.getaddrinfo = kept


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: for tensors this small, more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_traces(model: torch.nn.Module) -> dict[str, object]:
    """Return what a job must leave as it found it, besides the weights.

    Gradients wanted of which parameters, gradients held, modules (an adapter is one) and hooks,
    types of the weights, buffers, mode, and torch's defaults.
    """
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
    )
    return {
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients that are held": [n for n, p in model.named_parameters() if p.grad is not None],
        "modules": {name: type(part).__name__ for name, part in model.named_modules()},
        "types of the weights": {name: str(p.dtype) for name, p in model.named_parameters()},
        "hooks": {
            name: sum(len(getattr(part, kind)) for kind in hooks)
            for name, part in model.named_modules()
        },
        "buffers": {name: buffer.tolist() for name, buffer in model.named_buffers()},
        "training mode": model.training,
        "torch's default dtype": torch.get_default_dtype(),
        "whether torch records gradients": torch.is_grad_enabled(),
    }
