"""The figures that `get_request_metrics` and `get_error_metrics` answer, field by field."""

from pydantic import BaseModel, ConfigDict, Field

from ..models.jobs import JobState
from ..models.modality import Modality


class _Figures(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class FiguresView(_Figures):
    """Averages and rates over some jobs; null where there is nothing to average."""

    count: int
    completed: int
    failed: int
    cancelled: int
    expired: int
    success_rate: float | None = Field(
        description="Completed of those that were not cancelled, 0 to 1"
    )
    throughput_per_minute: float = Field(description="Completed jobs per minute")
    wait_avg_s: float | None = Field(description="Seconds in line")
    wait_p95_s: float | None
    processing_avg_s: float | None = Field(description="Seconds of work on the backend")
    processing_p95_s: float | None


class RequestView(_Figures):
    """How one job went."""

    model: str
    modality: Modality
    state: JobState
    wait_s: float
    processing_s: float
    ended_at: float = Field(description="Seconds since 1970")


class RequestFigures(_Figures):
    """Waits, processing times, throughput and success rate over the last 1000 jobs."""

    total_requests: int = Field(description="Jobs that ended since the server started")
    window: int = Field(description="How many of them the figures are about")
    overall: FiguresView
    by_modality: dict[Modality, FiguresView]
    recent: list[RequestView] = Field(description="The last ten")


class ErrorView(_Figures):
    """One error, with sizes and numbers of its request but none of its content."""

    at: float = Field(description="Seconds since 1970")
    job_id: str
    model: str
    modality: Modality
    code: str
    message: str
    final: bool = Field(description="False: another attempt followed")
    parameters: dict[str, str | int | float | bool]


class ErrorFigures(_Figures):
    """Errors by modality and model and by code, and the last 100 in detail."""

    total_errors: int = Field(description="Since the server started")
    counts_by_type: dict[str, dict[str, int]] = Field(description="By modality, then by model")
    counts_by_code: dict[str, int]
    recent_errors: list[ErrorView] = Field(description="Newest first")
