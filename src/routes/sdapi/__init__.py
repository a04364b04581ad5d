"""The API of the Stable Diffusion web UI (A1111), as its clients know it: behind it, a queue."""

from fastapi.routing import APIRoute

from ...processor import Processor
from ..doors import Manner
from ..tools import Tools
from . import listings, options, pictures, progress
from .checkpoints import Checkpoints
from .drawings import Drawings


def build(tools: Tools, processor: Processor, manner: Manner) -> list[APIRoute]:
    """Make the routes."""
    checkpoints, drawings = Checkpoints(processor), Drawings()
    routers = [progress.build(tools, processor, drawings), listings.build(checkpoints)]
    return [
        *pictures.build(tools, manner, checkpoints, drawings),
        *options.build(tools, manner, checkpoints),
        *(one for router in routers for one in router.routes if isinstance(one, APIRoute)),
    ]
