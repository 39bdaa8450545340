"""Energies of phase-space states and their forces."""

from symplectic_jepa.hamiltonians._base import AbstractSeparable as AbstractSeparable
from symplectic_jepa.hamiltonians._base import Hamiltonian as Hamiltonian
from symplectic_jepa.hamiltonians.controlled import ControlledHamiltonian as ControlledHamiltonian
from symplectic_jepa.hamiltonians.damped import DampedHamiltonian as DampedHamiltonian
from symplectic_jepa.hamiltonians.general import GeneralHamiltonian as GeneralHamiltonian
from symplectic_jepa.hamiltonians.potential import PotentialHamiltonian as PotentialHamiltonian
from symplectic_jepa.hamiltonians.quadratic import QuadraticHamiltonian as QuadraticHamiltonian
from symplectic_jepa.hamiltonians.separable import SeparableHamiltonian as SeparableHamiltonian
