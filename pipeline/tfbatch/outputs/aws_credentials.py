"""Credentials of profiles, single sign-on and roles, as boto3 finds them."""

from typing import TYPE_CHECKING, Self

from botocore.exceptions import BotoCoreError
from obstore.auth.boto3 import Boto3CredentialProvider

from tfbatch.errors import first_line

if TYPE_CHECKING:
    from obstore.store import S3Credential


class Credentials(Boto3CredentialProvider):
    """What boto3 says of them is an OSError: whoever asks a store for something is ready for that."""

    @classmethod
    def find(cls) -> Self:
        """Those that the environment names.

        Raises:
            OSError: there are none.
        """
        try:
            return cls()
        except (BotoCoreError, ValueError) as error:
            raise failing(error) from error

    def __call__(self) -> "S3Credential":
        try:
            return super().__call__()
        except BotoCoreError as error:
            raise failing(error) from error


def failing(error: Exception) -> OSError:
    """No credentials."""
    return OSError(13, f"no credentials: {first_line(error)}")
