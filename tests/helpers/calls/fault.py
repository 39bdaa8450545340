"""What a proper refusal is: an error of ours, soon, that names the argument."""

import re
import time
import traceback
from pathlib import Path

import symplectic_jepa as sj

OURS = Path(sj.__file__).parent
LIMIT = 1.0  # second of processor time, which other processes do not lengthen


def fault(function, arguments, name):
    """What is wrong with how ``function`` refuses the argument ``name``; ``None`` if nothing is."""
    start = time.process_time()
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        if OURS not in Path(frame.filename).parents:
            return f"raised by {frame.filename}: {error}"
        if not re.search(rf"(?<!\w){name}(?!\w)", str(error)):
            return f"does not name it: {error}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    else:
        return "accepted"
    return None if time.process_time() - start < LIMIT else "too slow"
