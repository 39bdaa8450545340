"""Save and load modules as two plain files, in a folder or on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import Self

from symplectic_jepa import _checks, _codec, _folder

_REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"
_HUB = "huggingface_hub", "the Hugging Face Hub needs: pip install huggingface-hub"


class Pretrained:
    """Mixin for the public modules: ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``.

    Every constructor argument is an attribute or property of the same name, which `config` reads. Modules of this
    library are written recursively, integrators by name, shared parts once. Parts that cannot be written, such as your
    own backbone or potential, must be passed again when loading. A subclass of yours is loaded by
    ``Mine.from_pretrained(…)``.

    Examples:
        >>> import tempfile, torch
        >>> from symplectic_jepa import HamiltonianPredictor, SeparableHamiltonian
        >>> from symplectic_jepa.predictors import Predictor
        >>> predictor = HamiltonianPredictor(SeparableHamiltonian(8), steps=4)
        >>> folder = tempfile.mkdtemp()
        >>> predictor.save_pretrained(folder)
        >>> Predictor.from_pretrained(folder).steps
        4
    """

    def config(self) -> dict[str, Any]:
        """The constructor's arguments by name, with their current values.

        Override it in a class that stores an argument under another name or takes ``**kwargs``.

        Raises:
            TypeError: if an argument is not an attribute, or the constructor takes ``*args`` or ``**kwargs``.
        """
        name, parameters = type(self).__name__, _codec.parameters(type(self))
        for parameter in parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(f"{name} must override config(): its constructor takes {parameter}")
            if not hasattr(self, parameter.name):
                raise TypeError(f"{name} must keep {parameter.name!r} as an attribute, or override config()")
        return {key: getattr(self, key) for key in parameters}

    def extra_repr(self) -> str:
        """The settings that differ from their defaults, for ``print``."""
        try:
            config = type(self).config(self)
        except TypeError:  # a subclass that cannot be saved can still be printed
            return ""
        parameters = _codec.parameters(type(self))
        shown = {k: x for k, x in config.items() if isinstance(x, (*_codec.PLAIN, tuple))}
        return ", ".join(
            f"{k}={x:g}" if isinstance(x, float) else f"{k}={x!r}"
            for k, x in shown.items()
            if not _codec.is_default(x, parameters.get(k))
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model-….safetensors`` to ``folder``, creating it if necessary.

        An interrupted save leaves the previous one intact. Counters of random draws are part of the weights.

        Args:
            folder: the folder; ``~`` is expanded.

        Raises:
            TypeError: if an argument cannot be read (see `config`), a class has the same name as one of ours, or
                ``folder`` is not a path.
            NotADirectoryError: if ``folder`` is a file.
            ImportError: if safetensors is not installed.
        """
        assert isinstance(self, nn.Module)
        path = _checks.path("folder", folder)
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"folder must be a folder, got the file {path}")
        writer = _codec.Writer(self)
        config = writer.encode(self)
        if writer.ties:
            config["ties"] = writer.ties
        _folder.write(path, config, writer.tensors)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, revision: str | None = None) -> str:
        """Upload to the Hugging Face repository ``"user/name"``, creating it if necessary.

        Args:
            repo_id: the repository.
            private: whether a new repository is private; ``None`` for the account's default.
            revision: branch to commit to; ``None`` for the main branch.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: if ``private`` is neither a bool nor ``None``.
            ImportError: if huggingface_hub or safetensors is not installed.
        """
        if private is not None:
            _checks.boolean("private", private)
        if not re.fullmatch(_REPOSITORY, _checks.instance("repo_id", repo_id, str)):
            raise ValueError(f"repo_id must be 'user/name', got {repo_id!r}")
        if revision is not None:
            _checks.instance("revision", revision, str)
        hub = _folder.require(*_HUB)
        hub.create_repo(repo_id, exist_ok=True, **({} if private is None else {"private": private}))
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = hub.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=f"Upload {type(self).__name__}",
                delete_patterns="model*.safetensors",
            )
        return str(commit)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        /,
        *,
        revision: str | None = None,
        allow_nonfinite: bool = False,
        **given: Any,
    ) -> Self:
        """Load a module saved by `save_pretrained`, on the CPU, in eval mode, in the dtypes of the weights.

        Args:
            source: a folder (``~`` is expanded), or a Hugging Face repository ``"user/name"`` where huggingface_hub is
                installed.
            revision: the repository's branch, tag or (preferably) commit.
            allow_nonfinite: accept NaN and infinity in the weights.
            given: arguments that could not be written, by name (``backbone=…``) or, if a name is ambiguous, by full
                path (``**{"hamiltonian.potential": …}``). Saved weights are copied into their tensors.

        Raises:
            FileNotFoundError: if ``source`` is neither a folder nor a repository, or lacks one of the two files.
            TypeError: if it holds another class, or an argument in ``given`` is missing, ambiguous or not needed.
            ValueError: if a file is damaged, holds NaN or infinity, or names something unknown to this library, if
                weights are missing or have the wrong shape, or ``allow_nonfinite`` is not a bool.
            ImportError: if safetensors is not installed.
        """
        _checks.boolean("allow_nonfinite", allow_nonfinite)
        if revision is not None:
            _checks.instance("revision", revision, str)
        folder = _checks.path("source", source)
        if not folder.is_dir():
            folder = _download(source, revision)
        config, tensors = _folder.read(folder)
        for name, x in tensors.items():
            if not allow_nonfinite and x.is_floating_point() and not x.isfinite().all():
                raise ValueError(f"{name} in {folder} holds NaN or infinity; allow_nonfinite=True accepts it")
        old = "format" not in config
        reader = _codec.Reader(tensors, given, cls, old=old)
        if not issubclass(reader.find(config["class"]), cls):
            raise TypeError(f"{folder} holds a {config['class']}, expected a {cls.__name__}")
        with _codec.bounded(tensors):
            module: Self = reader.decode(config)
        if unused := sorted(given.keys() - reader.used):
            raise TypeError(f"{folder} does not need {', '.join(unused)}")
        assert isinstance(module, nn.Module)
        _codec.load(module, tensors, config.get("ties", {}), old=old)
        return module.eval()


def _download(source: str | os.PathLike[str], revision: str | None) -> Path:
    """Download a Hugging Face repository and return its folder in the local cache."""
    missing = FileNotFoundError(f"source must be a folder or a repository 'user/name', got {str(source)!r}")
    if not isinstance(source, str) or not re.fullmatch(_REPOSITORY, source):
        raise missing
    try:
        hub = _folder.require(*_HUB)
    except ImportError as error:
        raise missing from error
    return Path(hub.snapshot_download(source, revision=revision, allow_patterns=[_folder.CONFIG, "model*.safetensors"]))
