"""Everything that can go wrong, as one tree.

::

    InferenceManagerError
    ├── InvalidInput            the caller's request cannot be carried out as it stands
    ├── UnknownModel            no backend offers this model for this modality
    ├── UnknownJob              no job has this id, or it was forgotten
    ├── UnknownFile             no file has this id, or it was deleted
    ├── UnknownBatch            no batch has this id, or it was forgotten
    ├── Unauthenticated         there is no key, or it is nobody's
    ├── Forbidden               this caller may not do that
    ├── WrongSignature          this server has not signed the address
    ├── AddressExpired          it has, but its time is over
    ├── InvalidTransition       the job's life cycle has no such step
    ├── StaleJob                somebody else changed the job first
    ├── IdempotencyConflict     the request's key was used for another request
    ├── Refused                 not taken in now; `retry_after` says when to try again
    │   ├── QueueFull
    │   ├── TooManyWaiting
    │   ├── BackendUnseen
    │   └── Draining
    ├── DeadlineExceeded        the job's time ran out before it could finish
    ├── JobCancelled            the job was cancelled
    ├── Interrupted             the server stopped before the job had ended
    ├── WorkerLost              the server stopped each time while it worked on the job
    ├── Quarantined             the job has killed a model's process twice; it is not tried again
    ├── StorageFailed           what should be kept cannot be written, or read again
    │   └── StoreUnusable       the store cannot be opened; a person has to look at it
    └── BackendError            one attempt on a backend failed
        ├── BackendUnavailable  it could not be reached, or went away before it answered
        ├── BackendTimeout      it stayed silent for too long
        ├── BackendBusy         it said: later (429, 503)
        ├── ModelLoadFailed     the model could not be loaded, or cools down after such a failure
        ├── ModelCrashed        the model's process died; the server itself lives
        ├── BackendFailed       it said: internal error (500)
        ├── BackendRejected     it refuses this request for good (4xx)
        │   └── NotOffered      it has no such service: not every LocalAI has
        ├── BackendUnauthorised it refuses our key (401, 403)
        └── BackendProtocolError    its answer is not what the protocol promises
            ├── StreamCut       a stream ended before its end
            └── EmptyResult     an answer without the text or picture it should hold

An error that ends a job is kept with the job, so every class has a stable ``code``; the message is
for people and never quotes a prompt, an image or a key.
"""

from collections.abc import Sequence


class InferenceManagerError(Exception):
    """The root of the tree.

    Attributes:
        code: stable machine-readable name, the same in every door.
        hint: what the caller can do about it, or an empty string.
        retry_after: seconds after which the same call may work, or None.

    """

    code = "internal_error"

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after


class InvalidInput(InferenceManagerError):
    """The request cannot be carried out as it stands; `param` names the field."""

    code = "invalid_request"

    def __init__(self, message: str, *, param: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.param = param


class UnknownModel(InferenceManagerError):
    """No backend offers this model for this modality; `nearest` lists similar names."""

    code = "model_not_found"

    def __init__(self, message: str, *, nearest: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.nearest = tuple(nearest)


class UnknownJob(InferenceManagerError):
    """No job has this id, or it was forgotten."""

    code = "job_not_found"

    @classmethod
    def of_that_id(cls) -> "UnknownJob":
        """Say it of a job's id, with the same words to those whose job it is not."""
        hint = "finished jobs are kept for a while, and forgotten earlier when room is needed"
        return cls("there is no job with this id", hint=hint)


class UnknownFile(InferenceManagerError):
    """No file has this id, or it was deleted."""

    code = "file_not_found"


class UnknownBatch(InferenceManagerError):
    """No batch has this id, or it was forgotten."""

    code = "batch_not_found"


class Unauthenticated(InferenceManagerError):
    """There is no key, or it is nobody's."""

    code = "invalid_api_key"


class Forbidden(InferenceManagerError):
    """The caller is known, but may not do that."""

    code = "not_permitted"


class WrongSignature(InferenceManagerError):
    """The address was not signed by this server, or was changed afterwards."""

    code = "wrong_signature"


class AddressExpired(InferenceManagerError):
    """The signed address was good for a while, and is not any more."""

    code = "address_expired"


class InvalidTransition(InferenceManagerError):
    """The job's life cycle has no such step."""

    code = "invalid_transition"


class StaleJob(InferenceManagerError):
    """Somebody else changed the job first."""

    code = "stale_job"


class IdempotencyConflict(InferenceManagerError):
    """The key that came with the request was used for another request."""

    code = "idempotency_conflict"


class Refused(InferenceManagerError):
    """The job was not taken in; `retry_after` says when to try again."""


class QueueFull(Refused):
    """As many jobs wait as may wait."""

    code = "queue_full"


class TooManyWaiting(Refused):
    """As many jobs of one caller wait as may wait."""

    code = "rate_limit_exceeded"


class BackendUnseen(Refused):
    """No backend that was reached offers this, but one that was not reached yet may."""

    code = "backend_unseen"


class Draining(Refused):
    """The manager takes no new work: it shuts down, or an operator lets it drain."""

    code = "shutting_down"


class DeadlineExceeded(InferenceManagerError):
    """The job's time ran out before it could finish."""

    code = "deadline_exceeded"


class JobCancelled(InferenceManagerError):
    """The job was cancelled."""

    code = "cancelled"


class Interrupted(InferenceManagerError):
    """The server stopped before the job had ended, and nobody waits for it any more."""

    code = "interrupted"


class WorkerLost(InferenceManagerError):
    """The server stopped each time while it worked on the job, which may be the cause."""

    code = "worker_lost"


class Quarantined(InferenceManagerError):
    """The job has killed a model's process twice; it is not tried again by itself."""

    code = "quarantined"


class StorageFailed(InferenceManagerError):
    """What should be kept cannot be written, or read again: the disk is full or broken."""

    code = "storage_failed"


class StoreUnusable(StorageFailed):
    """The store cannot be opened, and nothing in it was changed; the hint says what to do."""

    code = "store_unusable"


class BackendError(InferenceManagerError):
    """One attempt on a backend failed.

    Attributes:
        transient: whether another attempt may succeed.
        told_to_wait: whether the backend merely said "later", so that no attempt is used up.
        attempts: how many attempts this kind of failure allows; None leaves it to the settings.

    """

    code = "backend_error"
    transient = False
    told_to_wait = False
    attempts: int | None = None


class BackendUnavailable(BackendError):
    """It could not be reached, or went away before it answered.

    Attributes:
        reached: False when no connection came about: the attempt then never began.

    """

    code = "backend_unavailable"
    transient = True

    def __init__(self, message: str, *, reached: bool, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reached = reached


class BackendTimeout(BackendError):
    """It stayed silent for too long."""

    code = "backend_timeout"
    transient = True


class BackendBusy(BackendError):
    """It asks to come back later; `retry_after` is its own word where it gave one."""

    code = "backend_busy"
    transient = True
    told_to_wait = True


class ModelLoadFailed(BackendError):
    """The model could not be loaded, or cools down after such a failure.

    Attributes:
        cooling: True when the backend did not even try, because an earlier load failed.

    """

    code = "model_load_failed"
    transient = True

    def __init__(
        self, message: str, *, cooling: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.cooling = cooling
        self.told_to_wait = cooling


class ModelCrashed(BackendError):
    """The model's process died under the request; the server itself lives and restarts it."""

    code = "model_crashed"
    transient = True


class BackendFailed(BackendError):
    """It answered with an internal error: worth exactly one more attempt."""

    code = "backend_failed"
    transient = True
    attempts = 2


class BackendRejected(BackendError):
    """It refuses this request for good."""

    code = "backend_rejected"


class NotOffered(BackendRejected):
    """It has no such service: not every LocalAI has."""

    code = "not_offered"


class BackendUnauthorised(BackendError):
    """It refuses our key."""

    code = "backend_unauthorised"


class BackendProtocolError(BackendError):
    """Its answer is not what the protocol promises."""

    code = "backend_protocol_error"


class StreamCut(BackendProtocolError):
    """A stream ended before its end: worth another attempt while nobody has seen a piece of it."""

    code = "stream_cut"
    transient = True


class EmptyResult(BackendProtocolError):
    """An answer without the text or picture it should hold."""

    code = "empty_result"
    transient = True
    attempts = 2
