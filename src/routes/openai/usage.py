"""What an answer has cost in tokens: as the backend counted, or as we estimate where it did not."""

from collections.abc import Mapping

from ...models.jobs import Job
from ...models.requests import InferenceRequest, Txt2VecRequest
from ...models.results import Choice, Result

_BYTES_A_TOKEN = 4


def usage(job: Job, result: Result) -> Mapping[str, object]:
    """Count the tokens of a job; `estimated` is there, and true, if the backend did not."""
    finish = result.finish
    if finish.prompt_tokens or finish.completion_tokens:
        return _sum(finish.prompt_tokens, finish.completion_tokens)
    said = sum(_length(choice) for choice in result.choices)
    return {**_sum(_asked(job.request), _tokens(said)), "estimated": True}


def _length(choice: Choice) -> int:
    called = sum(len(call.name) + len(call.arguments) for call in choice.calls)
    return len(choice.text) + len(choice.reasoning) + called


def _sum(prompt: int, completion: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def read_only(job: Job, result: Result) -> Mapping[str, object]:
    """Count the tokens of a job that reads and writes nothing; `estimated` as in `usage`."""
    told = result.finish.prompt_tokens
    asked = told or _asked(job.request)
    tokens = {"prompt_tokens": asked, "total_tokens": asked}
    return tokens if told else {**tokens, "estimated": True}


def _asked(request: InferenceRequest) -> int:
    """Estimate what a request holds; what is written in tokens is counted."""
    if isinstance(request, Txt2VecRequest):
        said = sum(len(text) for text in request.input if isinstance(text, str))
        return _tokens(said) + sum(len(t) for t in request.input if not isinstance(t, str))
    return _tokens(sum(length for name, length in request.lengths().items() if name != "model"))


def _tokens(characters: int) -> int:
    """Estimate: a token is about four characters of English."""
    return -(-characters // _BYTES_A_TOKEN)
