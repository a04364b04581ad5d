"""OpenAI's API, as its clients know it: the same paths, with and without `/v1`, the same shapes."""

from fastapi.routing import APIRoute

from ..doors import Manner
from ..tools import Tools
from . import audio, chat, completions, embeddings, images, models, moderations, rerank


def build(tools: Tools, manner: Manner) -> list[APIRoute]:
    """Make the routes."""
    return [
        *chat.build(tools, manner),
        *images.build(tools, manner),
        *audio.build(tools, manner),
        *completions.build(tools, manner),
        *embeddings.build(tools, manner),
        *rerank.build(tools, manner),
        *moderations.build(tools, manner),
        *models.build(tools),
    ]
