"""Random workers, budgets and memories, with what the oracle says of them."""

from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from serveopt.kernels.records import Budgets, Memory, Scheduler, Serving, Steps, Workload
from serveopt.solver.backends import BACKENDS
from serveopt.solver.budgets import make_budgets
from tests import oracle

BOUNDED = settings(max_examples=50, deadline=None)
SCHEDULERS = [BACKENDS[name].scheduler(4, 9, strict) for name in sorted(BACKENDS) for strict in (False, True)]
ROOMY = Memory(1.0, 0.0, 0.0, 0.0, 1e-6, 1e9, 1.0, 1.0, 1.0)
NO_ROOM = Memory(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def workload(isl: int, osl: int, prefix: int, ttft_ms: float, tpot_ms: float, tokens_per_step: float = 1.0) -> Workload:
    """A request shape; every decode step yields ``tokens_per_step`` tokens of an answer."""
    return Workload(isl, osl, prefix, ttft_ms, tpot_ms, 1.0 + (osl - 1) / tokens_per_step)


class Case(NamedTuple):
    """A worker's step latencies, its budgets and the question."""

    work: Workload
    scheduler: Scheduler
    steps: Steps
    budgets: Budgets
    whole_ms: np.ndarray  # attention of 0, 1, 2 ... whole prompts
    most: int

    @property
    def serving(self) -> Serving:
        """The case as the kernels read it."""
        return Serving(self.steps, self.budgets, self.work, self.scheduler)


def build_budgets(work: Workload, sizes: np.ndarray, whole_ms: np.ndarray, scheduler: Scheduler) -> Budgets:
    """The budgets with what depends on them alone."""
    strict = bool(scheduler.strict_chunks)
    chunks = (-(-work.isl // sizes)).astype(np.float64)
    rows = [
        (
            oracle.step_prompts(work.isl, size, strict),
            oracle.budget_attention(whole_ms, work.isl, size, strict),
            oracle.cached_tokens(work.isl, work.prefix, size, strict),
        )
        for size in sizes.tolist()
    ]
    prompts, attention, cached = (np.array(column) for column in zip(*rows, strict=True))
    return make_budgets(sizes, prompts, chunks, attention.astype(np.float64), cached, scheduler.drafts)


def build_case(work: Workload, scheduler: Scheduler, sizes: list[int], most: int, seed: int = 0) -> Case:
    """Random, increasing step latencies."""
    random = np.random.default_rng(seed)
    budgets = np.array(sorted(sizes), np.int64)
    whole_ms = np.append(0.0, np.cumsum(random.uniform(0.1, 2, -(-int(budgets[-1]) // work.isl))))
    context = np.cumsum(random.uniform(0, 0.2, int(budgets[-1]) + most * scheduler.drafts + 1))
    decode, attention = (np.cumsum(random.uniform(0, 0.3, most + 1)) for _ in range(2))
    logits = 0.37 + np.cumsum(random.uniform(0, 0.05, most * scheduler.drafts + int(budgets[-1]) // work.isl + 2))
    steps = Steps(context, logits, decode + 1.0, attention - attention[0])
    return Case(work, scheduler, steps, build_budgets(work, budgets, whole_ms, scheduler), whole_ms, most)


@st.composite
def cases(draw: st.DrawFn, largest: int = 40, least_osl: int = 2) -> Case:
    """Any scheduler, prompt, answer, prefix, depth of speculation, encoder and set of budgets."""
    drafts = draw(st.sampled_from([1, 1, 2, 4]))
    isl = draw(st.integers(drafts, 24))  # a decoding request brings no more tokens than a prompt
    targets = (draw(st.floats(1, 400)), draw(st.floats(1, 60)))
    accepted = draw(st.floats(0, drafts - 1))
    work = workload(isl, draw(st.integers(least_osl, 20)), draw(st.integers(0, isl - 1)), *targets, accepted + 1)
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=8, unique=True))
    encoder_ms = draw(st.sampled_from([0.0, 0.0, 7.3]))
    scheduler = draw(st.sampled_from(SCHEDULERS))._replace(drafts=drafts, encoder_ms=encoder_ms)
    return build_case(work, scheduler, sizes, draw(st.integers(1, 9)), draw(st.integers(0, 99)))


def expected(case: Case, batch: int, at: int) -> tuple[float, float, float]:
    """What the oracle says of ``batch`` under budget ``at``: TTFT, TPOT, tokens/s."""
    work, steps, budget = case.work, case.steps, int(case.budgets.ctx_tokens[at])
    decoding = oracle.decoding_requests(work, case.scheduler, batch, budget)
    strict = bool(case.scheduler.strict_chunks)
    tokens = budget + decoding * case.scheduler.drafts - oracle.cached_tokens(work.isl, work.prefix, budget, strict)
    attention = oracle.budget_attention(case.whole_ms, work.isl, budget, strict)
    ending = oracle.step_prompts(work.isl, budget, strict) + decoding * case.scheduler.drafts
    logits = steps.context_logits[min(ending, steps.context_logits.size - 1)]
    mixed = steps.context[tokens] + logits + attention + steps.decode_attention[decoding]
    return oracle.price(
        work, case.scheduler, batch, budget, (mixed, steps.decode[batch] + steps.decode_attention[batch])
    )


MEMORIES = st.builds(
    Memory,
    fixed=st.floats(0, 50),
    per_token=st.floats(0, 2),
    floor=st.floats(0, 30),
    tokens_floor=st.sampled_from([0.0, 16.0]),
    per_sequence=st.floats(0.1, 20),
    capacity=st.floats(1, 200),
    share=st.floats(0.3, 1),
    taken=st.floats(0.3, 1),
    drafts=st.just(1.0),
)
