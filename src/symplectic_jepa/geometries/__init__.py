"""Geometries: symmetric positive definite operators ``H`` on states."""

from symplectic_jepa.geometries._base import Geometry as Geometry
from symplectic_jepa.geometries.diagonal import DiagonalGeometry as DiagonalGeometry
from symplectic_jepa.geometries.diagonal import IdentityGeometry as IdentityGeometry
from symplectic_jepa.geometries.matrix import MatrixGeometry as MatrixGeometry
from symplectic_jepa.geometries.token_grid import LaplacianGeometry as LaplacianGeometry
from symplectic_jepa.geometries.token_grid import RadialGeometry as RadialGeometry
from symplectic_jepa.geometries.token_grid import TokenGridGeometry as TokenGridGeometry
