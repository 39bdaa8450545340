"""Ranks that disagree: ``python agreement_cases.py STORE W RANK OUT``, see test_agreement.py."""

from contextlib import ExitStack
from copy import deepcopy
from unittest.mock import patch

import torch
import torch.distributed as dist

import symplectic_jepa as sj
from tests.distributed.ddp_cases import D, on_this_rank, penalties, predictor

OTHER = 1  # the rank that differs


def states(dim=2 * D, seed=0):
    return torch.randn(2, 8, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(change=lambda named: named, **options):
    return sj.HamJEPAObjective(predictor(), penalties=change(penalties()), **options).double()


def run(loss, x=None, *, steps=1):
    """The loss of the last of a few steps, or the error of the first that raises one."""
    try:
        for _ in range(steps):
            out = loss(states() if x is None else x)
            value = out if isinstance(out, torch.Tensor) else out.loss
    except RuntimeError as error:
        return str(error)
    return value.item()


def weight(named):
    named["mean"].weight *= 10
    return named


def reversed_order(named):
    return dict(reversed(named.items()))


def renamed(named):
    return {name.replace("mean", "average"): penalty for name, penalty in named.items()}


def longer(named):
    return {**named, "mean_q": sj.Penalty(sj.MeanPenalty(), on="q")}


def with_mmd(named):
    return {**named, "mmd": sj.Penalty(sj.MMD())}


def shorter(named):
    named["spectrum_p"].regularizer.proj_dim = 3
    return named


def seeded(named):
    named["spectrum_p"].regularizer.schedule.seed = 11
    return named


def same(named):
    return named


CHANGES = (weight, reversed_order, renamed, longer, with_mmd, shorter, seeded)


def changed(change):
    def case(rank):
        return run(objective(change if rank == OTHER else same))

    return case


def predictor_setting(rank):
    loss = objective()
    loss.predictor.hamiltonian.set_residual_scale(0.25 if rank == OTHER else 0.5)
    return run(loss)


def scale(rank):
    loss = objective()
    loss.set_regularizer_scale(10.0 if rank == OTHER else 1.0)
    return run(loss)


def dimension(rank):
    return run(sj.MeanPenalty(), states(10 if rank == OTHER else 12))


def alone(rank):
    return run(sj.SIGReg(slices=7, seed=int(rank == OTHER)))


def alone_length(rank):
    return run(sj.SIGReg(slices=8 if rank == OTHER else 7))


def compiled(rank):
    loss = objective(weight if rank == OTHER else same)
    loss.compile(fullgraph=True, backend="aot_eager")
    return run(loss)


def loaded(rank, *, compiled=False, make=objective):
    """Rank 0 alone loads an earlier checkpoint."""
    loss = make()
    if compiled:
        loss.compile(fullgraph=True, backend="aot_eager")
    before = deepcopy(loss.state_dict())
    first = run(loss, steps=2)
    if rank == 0:
        loss.load_state_dict(before)
    return [first, run(loss)]


def loaded_compiled(rank):
    return loaded(rank, compiled=True)


def loaded_alone(rank):
    return loaded(rank, make=lambda: sj.SIGReg(slices=7))


def all_loaded(rank):
    """Every rank loads: nothing to complain of."""
    loss = objective()
    before = deepcopy(loss.state_dict())
    first = [run(loss), run(loss)]
    loss.load_state_dict(before)
    return [*first, run(loss), run(loss)]


def step_set(rank):
    loss = objective()
    loss.set_step(5 if rank == OTHER else 4)
    return run(loss)


def copied(rank):
    """A copy is a module of its own."""
    loss = objective()
    first = run(loss)
    loss = deepcopy(loss)
    if rank == OTHER:
        loss.penalties["mean"].weight = 7.0
    return [first, run(loss)]


def function(rank):
    """Under the transforms of torch.func."""
    loss = objective(seeded if rank == OTHER else same)
    return run(lambda x: torch.func.vjp(lambda y: loss(y).loss, x)[0])


def collectives(rank):
    """Those of the forward pass of three steps."""
    loss, names = objective(), ("all_reduce", "all_gather", "all_gather_object")
    with ExitStack() as stack:
        spies = {name: stack.enter_context(patch.object(dist, name, wraps=getattr(dist, name))) for name in names}
        steps = []
        for _ in range(3):
            run(loss)
            steps.append({name: spy.call_count for name, spy in spies.items()})
            for spy in spies.values():
                spy.reset_mock()
    return steps


CASES = {
    **{change.__name__: changed(change) for change in CHANGES},
    **{
        case.__name__: case
        for case in (
            predictor_setting, scale, dimension, alone, alone_length, compiled, loaded, loaded_compiled, loaded_alone,
            all_loaded, step_set, copied, function, collectives,
        )
    },
}  # fmt: skip


COMPILED = ("compiled", "loaded_compiled")  # on two ranks only: it takes seconds


def main(rank, world):
    return {name: case(rank) for name, case in CASES.items() if world == 2 or name not in COMPILED}


if __name__ == "__main__":
    on_this_rank(main)
