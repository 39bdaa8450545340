"""Hamiltonians, integrators, predictors, encoders and geometries."""

import torch
from torch import nn

import symplectic_jepa as sj
from symplectic_jepa import geometries, integrators
from tests.helpers import bad_values as bad
from tests.helpers.calls.call import CONTROL, SPD, D, P, Q, Z, by_name, call

QUADRATIC = sj.QuadraticHamiltonian(D, geometry=SPD.float())
CONTROLLED = sj.ControlledHamiltonian(QUADRATIC, torch.randn(D, 2))
PENDULUM = sj.PotentialHamiltonian(lambda q: q.cos().sum(-1))
SIZED = {
    "SeparableHamiltonian": sj.SeparableHamiltonian(D, hidden_dim=8),
    "SeparableHamiltonian, mass": sj.SeparableHamiltonian(D, hidden_dim=8, learn_mass=True),
    "QuadraticHamiltonian": QUADRATIC,
    "ControlledHamiltonian": CONTROLLED,
    "DampedHamiltonian": sj.DampedHamiltonian(QUADRATIC, 0.3),
}
SEPARABLE = {**SIZED, "PotentialHamiltonian": PENDULUM}
ARM = sj.MassMatrixHamiltonian(lambda q: q.diag_embed(), lambda q: q.cos().sum(-1), floor=0.1)
SYSTEMS = {
    **SEPARABLE,
    "GeneralHamiltonian": sj.GeneralHamiltonian(D, hidden_dim=8),
    "MassMatrixHamiltonian": ARM,
}
PREDICTORS = {
    "HamiltonianPredictor": sj.HamiltonianPredictor(SYSTEMS["SeparableHamiltonian"]),
    "HamiltonianPredictor, midpoint": sj.HamiltonianPredictor(
        SYSTEMS["GeneralHamiltonian"], integrator=sj.implicit_midpoint
    ),
    "ResidualMLPPredictor": sj.ResidualMLPPredictor(D, hidden_dim=8),
    "SymplecticNetPredictor": sj.SymplecticNetPredictor(D, hidden_dim=8),
}
DRIVEN = sj.HamiltonianPredictor(CONTROLLED)
GEOMETRIES = {
    "DiagonalGeometry": geometries.DiagonalGeometry(torch.ones(2 * D)),
    "MatrixGeometry": geometries.MatrixGeometry(torch.eye(2 * D)),
    "LaplacianGeometry": geometries.LaplacianGeometry((2, 2)),
    "RadialGeometry": geometries.RadialGeometry((2, 2)),
}
PHASE = {"q": (Q, bad.states), "p": (P, bad.states)}
STEPS = {"dt": (0.1, bad.step), "steps": (2, bad.integer)}
STEPPED = {"dt": (0.1, bad.positive), "steps": (2, bad.integer), "learn_dt": (False, bad.flag)}
MLP = {
    "dim": (D, bad.integer),
    "hidden_dim": (8, bad.integer),
    "depth": (2, bad.depth),
    "activation": ("tanh", bad.option),
    "residual_scale": (0.1, bad.number),
}
ACTIONS = {"control_dim": (0, bad.seed)}
GRID = {"grid": ((2, 2), bad.pair), "halves": (2, bad.integer), "boundary": ("free", bad.option)}
# The force and the potential run at every step, so they do not compare devices.
INNER = bad.without(bad.states, "meta")

UNCONTROLLED = {"control": (None, lambda _: bad.optional(bad.alone)(CONTROL))}
ACTED = sj.SeparableHamiltonian(D, hidden_dim=8, control_dim=CONTROL.shape[-1])


def free(system):
    """The argument ``control`` of a potential that takes none, if it has that argument."""
    return UNCONTROLLED if isinstance(system, sj.SeparableHamiltonian) else {}


HAMILTONIANS = {
    "SeparableHamiltonian": call(
        sj.SeparableHamiltonian, **MLP, base_coeff=(0.1, bad.number), learn_mass=(False, bad.flag), **ACTIONS
    ),
    "GeneralHamiltonian": call(sj.GeneralHamiltonian, **MLP, base_coeff=(1.0, bad.number)),
    "QuadraticHamiltonian": call(
        sj.QuadraticHamiltonian,
        dim=(D, bad.integer),
        geometry=(SPD, bad.without(bad.matrix, "None", "meta")),
    ),
    "PotentialHamiltonian": call(sj.PotentialHamiltonian, potential=(nn.ReLU(), bad.function), **ACTIONS),
    "MassMatrixHamiltonian": call(
        sj.MassMatrixHamiltonian,
        factor=(nn.ReLU(), bad.function),
        potential=(nn.ReLU(), bad.function),
        floor=(0.1, bad.nonnegative),
    ),
    "inverse_mass": call(ARM.inverse_mass, q=(Q, bad.inner)),
    "ControlledHamiltonian": call(
        sj.ControlledHamiltonian,
        hamiltonian=(QUADRATIC, bad.module),
        input_matrix=(torch.ones(D, 2), bad.alone),
    ),
    "DampedHamiltonian": call(
        sj.DampedHamiltonian,
        hamiltonian=(QUADRATIC, bad.module),
        damping=(torch.full((D,), 0.3), bad.without(bad.diagonal, "number")),
        learn=(False, bad.flag),
    ),
    "DampedHamiltonian, number": call(
        sj.DampedHamiltonian,
        hamiltonian=(QUADRATIC, bad.module),
        damping=(0.3, bad.without(bad.nonnegative, "tensor")),
        learn=(False, bad.flag),
    ),
    "with_control": call(CONTROLLED.with_control, control=(CONTROL, bad.alone)),
    "input_force": call(CONTROLLED.input_force, q=(Q, bad.states), control=(CONTROL, bad.states)),
    "set_residual_scale": call(SIZED["SeparableHamiltonian"].set_residual_scale, scale=(0.1, bad.number)),
    **{f"{name}()": call(system, **PHASE) for name, system in SYSTEMS.items()},
    **{f"{name}.gradient": call(system.gradient, **PHASE) for name, system in SYSTEMS.items()},
    **{f"{name}.vector_field": call(system.vector_field, **PHASE) for name, system in SYSTEMS.items()},
    **{f"{name}.potential": call(system.potential, q=(Q, INNER), **free(system)) for name, system in SIZED.items()},
    **{f"{name}.force": call(system.force, q=(Q, INNER), **free(system)) for name, system in SIZED.items()},
    **{f"{name}.kinetic": call(system.kinetic, p=(P, bad.inner)) for name, system in SEPARABLE.items()},
    "PotentialHamiltonian.potential": call(PENDULUM.potential, q=(Q, bad.inner), **UNCONTROLLED),
    "PotentialHamiltonian.force": call(PENDULUM.force, q=(Q, bad.inner), **UNCONTROLLED),
    "driven potential": call(ACTED.potential, q=(Q, INNER), control=(CONTROL, INNER)),
    "driven potential, force": call(ACTED.force, q=(Q, INNER), control=(CONTROL, INNER)),
}
INTEGRATORS = {
    "Splitting": call(
        integrators.Splitting,
        name=("mine", bad.string),
        kicks=((0.5, 0.5), bad.coefficients),
        drifts=((1.0,), bad.coefficients),
        order=(2, bad.integer),
        reference=("", bad.string),
    ),
    "ImplicitMidpoint": call(integrators.ImplicitMidpoint, iterations=(3, bad.integer)),
    "force_evaluations": call(sj.leapfrog.force_evaluations, steps=(2, bad.integer)),
    "residual": call(sj.implicit_midpoint.residual, hamiltonian=(QUADRATIC, bad.module), **PHASE, **STEPS),
    "implicit_midpoint": call(sj.implicit_midpoint, hamiltonian=(QUADRATIC, bad.module), **PHASE, **STEPS),
    **{
        name: call(
            splitting, hamiltonian=(QUADRATIC, bad.module), **PHASE, **STEPS, gradient=("reversible", bad.option)
        )
        for name, splitting in integrators.SPLITTINGS.items()
    },
}
SIGNED = {"direction": (1, bad.direction), **UNCONTROLLED}
PREDICTIONS = {
    "split_state": call(sj.split_state, z=(Z, bad.alone)),
    "join_state": call(sj.join_state, **PHASE),
    "HamiltonianPredictor": call(
        sj.HamiltonianPredictor,
        hamiltonian=(QUADRATIC, bad.module),
        **STEPPED,
        integrator=(sj.leapfrog, bad.function),
        gradient=("stored", bad.option),
    ),
    "ResidualMLPPredictor": call(
        sj.ResidualMLPPredictor,
        dim=(D, bad.integer),
        hidden_dim=(8, bad.integer),
        depth=(2, bad.depth),
        **ACTIONS,
        **STEPPED,
    ),
    "SymplecticNetPredictor": call(
        sj.SymplecticNetPredictor,
        dim=(D, bad.integer),
        layers=(2, bad.integer),
        hidden_dim=(8, bad.integer),
        depth=(2, bad.depth),
        **ACTIONS,
        dt=(0.1, bad.positive),
        activation=("tanh", bad.option),
        base_coeff=(0.1, bad.number),
        gradient=("stored", bad.option),
    ),
    **{f"{name}()": call(predictor, z=(Z, bad.states), **SIGNED) for name, predictor in PREDICTORS.items()},
    **{f"{name}.flow": call(predictor.flow, **PHASE, **SIGNED) for name, predictor in PREDICTORS.items()},
    **{
        f"{name}.each_direction": call(predictor.each_direction, **PHASE, **SIGNED)
        for name, predictor in PREDICTORS.items()
    },
    "energy": call(PREDICTORS["HamiltonianPredictor"].energy, **PHASE, **UNCONTROLLED),
    # A state and a control on different devices: the error names the control.
    "driven": call(DRIVEN, z=(Z, INNER), direction=(1, bad.direction), control=(CONTROL, bad.optional(bad.states))),
    "driven, rollout": call(
        DRIVEN.rollout,
        z=(Z, INNER),
        controls=(CONTROL.expand(2, *CONTROL.shape), bad.without(bad.states, "None", "meta", "wider", "empty")),
        steps=(2, bad.optional(bad.integer)),
        direction=(1, bad.without(bad.direction, "short")),
    ),
    "driven, energy": call(DRIVEN.energy, **PHASE, control=(CONTROL, bad.optional(bad.states))),
}
VECTOR = {
    "backbone": (nn.ReLU(), bad.without(bad.module, "other module")),
    "features": (6, bad.integer),
    "dim": (2, bad.integer),
}
ENCODERS = {
    "PhaseSpaceTokenEncoder": call(
        sj.PhaseSpaceTokenEncoder,
        backbone=(nn.ReLU(), bad.without(bad.module, "other module")),
        in_channels=(6, bad.integer),
        token_channels=(4, bad.integer),
        grid=(2, bad.pair),
        prefix_tokens=(1, bad.seed),
        token_shape=((2, 2), bad.pair),
    ),
    "PhaseSpaceVectorEncoder": call(sj.PhaseSpaceVectorEncoder, **VECTOR),
    "PhaseSpaceCausalEncoder": call(sj.PhaseSpaceCausalEncoder, **VECTOR, frames=(2, bad.integer)),
    "PhaseSpaceVectorEncoder()": call(
        sj.PhaseSpaceVectorEncoder(nn.Identity(), features=6, dim=2), x=(torch.randn(2, 6), bad.inner)
    ),
    "PhaseSpaceCausalEncoder()": call(
        sj.PhaseSpaceCausalEncoder(nn.Identity(), features=6, dim=2),
        x=(torch.randn(3, 2, 6), bad.without(bad.alone, "empty")),
    ),
    "resnet18": call(
        sj.PhaseSpaceTokenEncoder.resnet18,
        stem=("cifar", bad.option),
        token_layer=(3, bad.integer),
        token_channels=(4, bad.integer),
        grid=(2, bad.pair),
    ),
    "PhaseSpaceTokenEncoder()": call(
        sj.PhaseSpaceTokenEncoder(nn.Conv2d(3, 6, 4, 4), in_channels=6, token_channels=4),
        images=(torch.randn(2, 3, 8, 8), bad.alone),
    ),
    "DiagonalGeometry": call(geometries.DiagonalGeometry, diagonal=(torch.ones(D), bad.diagonal)),
    "MatrixGeometry": call(geometries.MatrixGeometry, matrix=(SPD, bad.without(bad.matrix, "meta"))),
    "LaplacianGeometry": call(
        geometries.LaplacianGeometry, **GRID, kappa=(1.0, bad.nonnegative), eps=(1.0, bad.positive)
    ),
    "RadialGeometry": call(
        geometries.RadialGeometry,
        **GRID,
        knots=(3, bad.integer),
        max_condition=(9.0, bad.positive),
        initial_condition=(2.0, bad.positive),
    ),
    **{
        f"{name}.sqrt_apply": call(
            by_name(geometry.sqrt_apply, "z"), z=(Z, INNER if hasattr(geometry, "grid") else bad.states)
        )
        for name, geometry in GEOMETRIES.items()
    },
}
CALLS = {**HAMILTONIANS, **INTEGRATORS, **PREDICTIONS, **ENCODERS}
