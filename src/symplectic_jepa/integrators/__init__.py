"""Symplectic maps on (q, p)."""

from symplectic_jepa.integrators.splitting import Integrator as Integrator
from symplectic_jepa.integrators.splitting import leapfrog as leapfrog
from symplectic_jepa.integrators.splitting import symplectic_euler as symplectic_euler
