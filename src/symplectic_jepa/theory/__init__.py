"""The paper's theory as functions: oracle geometry, coupling, spectral bounds, and a geometry fitted to labels."""

from symplectic_jepa.theory._fit_geometry import IsotropyReport as IsotropyReport
from symplectic_jepa.theory._fit_geometry import fit_geometry as fit_geometry
from symplectic_jepa.theory._fit_geometry import isotropy_report as isotropy_report
from symplectic_jepa.theory.bounds import condition_number_bound as condition_number_bound
from symplectic_jepa.theory.bounds import max_eigenvalue_bound as max_eigenvalue_bound
from symplectic_jepa.theory.bounds import min_eigenvalue_bound as min_eigenvalue_bound
from symplectic_jepa.theory.coupling import ConditionalDistribution as ConditionalDistribution
from symplectic_jepa.theory.coupling import conditional_distribution as conditional_distribution
from symplectic_jepa.theory.coupling import scaled_coupling as scaled_coupling
from symplectic_jepa.theory.factorization import KickDriftScaling as KickDriftScaling
from symplectic_jepa.theory.factorization import kick_drift_scaling as kick_drift_scaling
from symplectic_jepa.theory.geometry import geometry_of_covariance as geometry_of_covariance
from symplectic_jepa.theory.geometry import maximum_entropy_distribution as maximum_entropy_distribution
from symplectic_jepa.theory.geometry import minimax_covariance as minimax_covariance
from symplectic_jepa.theory.geometry import minimax_value as minimax_value
from symplectic_jepa.theory.geometry import worst_case_variance as worst_case_variance
from symplectic_jepa.theory.isotropy import adversarial_geometry as adversarial_geometry
from symplectic_jepa.theory.isotropy import isotropic_covariance as isotropic_covariance
from symplectic_jepa.theory.isotropy import metric_anisotropy as metric_anisotropy
from symplectic_jepa.theory.isotropy import price_of_isotropy as price_of_isotropy
from symplectic_jepa.theory.isotropy import regret as regret
from symplectic_jepa.theory.isotropy import whiten as whiten
from symplectic_jepa.theory.lift import QuadraticLift as QuadraticLift
from symplectic_jepa.theory.lift import quadratic_flow as quadratic_flow
from symplectic_jepa.theory.lift import quadratic_lift as quadratic_lift
