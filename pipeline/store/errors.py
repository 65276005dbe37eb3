"""What a store may answer, typed; each message is one line that names the path and the remedy."""

from pipeline.errors import PipelineError


class StoreError(PipelineError):
    """A store operation failed for a reason that trying again does not cure."""


class BadPath(StoreError):
    """A path that would leave the output or that not every store can hold."""


class NotFound(StoreError):
    """Nothing is stored under the path."""


class Denied(StoreError):
    """The store refuses: permissions, or a file system mounted read-only."""


class NoCredentials(Denied):
    """There is nobody to sign in as: noticed before anything starts."""

    exit_code = 2


class Conflict(StoreError):
    """The path already holds something else, or was replaced meanwhile."""


class NoSpace(StoreError):
    """The disk or the quota is full."""


class Corrupt(StoreError):
    """What was read is not what was written."""


class Unavailable(StoreError):
    """The store did not answer within its time-outs and retries."""
