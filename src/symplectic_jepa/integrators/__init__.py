"""Symplectic integrators: maps on ``(q, p)``."""

from symplectic_jepa.integrators._base import Integrator as Integrator
from symplectic_jepa.integrators.explicit import SPLITTINGS as SPLITTINGS
from symplectic_jepa.integrators.explicit import leapfrog as leapfrog
from symplectic_jepa.integrators.explicit import position_verlet as position_verlet
from symplectic_jepa.integrators.explicit import ruth3 as ruth3
from symplectic_jepa.integrators.explicit import symplectic_euler as symplectic_euler
from symplectic_jepa.integrators.explicit import yoshida4 as yoshida4
from symplectic_jepa.integrators.explicit import yoshida6 as yoshida6
from symplectic_jepa.integrators.implicit import ImplicitMidpoint as ImplicitMidpoint
from symplectic_jepa.integrators.implicit import implicit_midpoint as implicit_midpoint
from symplectic_jepa.integrators.splitting import Splitting as Splitting
