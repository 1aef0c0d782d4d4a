"""Repositories of the Hugging Face Hub, written to by explicit command alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from had.errors import HadError

log = logging.getLogger(__name__)

PREFIX = "hub:"


@dataclass(frozen=True)
class Repository:
    """A repository that a student goes to.

    Attributes:
        name: "organisation/name".
        private: whether only its owner sees it, if it is made here.
    """

    name: str
    private: bool = False

    def check(self, *, force: bool) -> None:
        """See to it that an upload can succeed; nothing is written.

        Args:
            force: whether the repository may hold files already.

        Raises:
            HadError: the name is not valid, the Hub is out of reach, nobody is logged in, or the
                repository is not what was asked for.
        """
        self._check_name()
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise HadError(f"{self}: HF_HUB_OFFLINE is set; unset it, or give a directory")
        if get_token() is None:
            raise HadError(f"{self}: not logged in; run `hf auth login`, or set HF_TOKEN")
        with self._explained():
            self._api.whoami()
            if not self._api.repo_exists(self.name):
                return
            files = set(self._api.list_repo_files(self.name)) - {".gitattributes"}
            public = not self._api.repo_info(self.name).private
        if files and not force:
            raise HadError(f"{self}: holds files; --force replaces those of the same names")
        if self.private and public:
            raise HadError(f"{self}: is public already; make it private on the Hub first")

    def upload(self, directory: Path) -> str:
        """Make the repository if there is none, and put the files of a directory into it.

        Returns:
            Its address.

        Raises:
            HadError: the Hub refused.
        """
        with self._explained():
            address = self._api.create_repo(self.name, private=self.private, exist_ok=True)
            self._api.upload_folder(
                repo_id=self.name,
                folder_path=directory,
                commit_message="A student with Hamming attention",
            )
        return str(address)

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi()

    def _check_name(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(self.name)
        except HFValidationError as error:
            raise HadError(f"{self}: {error}") from error
        if "/" not in self.name:
            raise HadError(f"{self}: must be {PREFIX}ORGANISATION/NAME")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the Hub's and the network's errors into one message."""
        import httpx

        try:
            yield
        except (OSError, httpx.HTTPError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise HadError(f"{self}: the Hub refused or is out of reach: {first_line}") from error

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}"
