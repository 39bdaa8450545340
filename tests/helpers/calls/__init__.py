"""One valid call of every public callable, with the kind of each argument."""

from tests.helpers.calls.dynamics import CALLS as DYNAMICS
from tests.helpers.calls.losses import CALLS as LOSSES
from tests.helpers.calls.measures import CALLS as MEASURES

CALLS = {**DYNAMICS, **LOSSES, **MEASURES}
