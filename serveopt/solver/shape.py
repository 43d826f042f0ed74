"""The shape of a request as the decoder sees it."""

from dataclasses import dataclass

from serveopt.solver.engine import Engine
from serveopt.solver.images import measure_images
from serveopt.solver.point import Point
from serveopt.solver.problem import Problem


@dataclass(frozen=True, slots=True)
class Shape:
    """The request shape: prompt, answer, cached prefix; ``max_seq_len`` sizes the KV cache."""

    isl: int
    osl: int
    prefix: int = 0
    max_seq_len: int | None = None

    @property
    def middle(self) -> int:
        """KV length half-way through the answer."""
        return self.isl + self.osl // 2 + 1


def request_shape(request: Problem | Point, engine: Engine) -> Shape:
    """The request shape as the decoder sees it: the tokens of images come on top of the text."""
    isl = request.isl + measure_images(engine.model, *request.image).tokens
    return Shape(isl, request.osl, request.prefix_len, request.max_seq_len)
