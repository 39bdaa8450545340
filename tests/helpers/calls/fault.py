"""What a proper refusal is: an error of ours, soon, that names the argument; or a message that ends a command."""

import re
import time
import traceback
from pathlib import Path

import pytest

import symplectic_jepa as sj

OURS = Path(sj.__file__).parent
LIMIT = 20  # seconds, against a hang: each call takes milliseconds


def fault(function, arguments, name):
    """What is wrong with how ``function`` refuses the argument ``name``; ``None`` if nothing is."""
    start = time.perf_counter()
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
    return None if time.perf_counter() - start < LIMIT else "too slow"


def refused(*parts, call):
    """``call`` ends with a message that contains every one of ``parts``."""
    with pytest.raises(SystemExit) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert str(part) in message, message
