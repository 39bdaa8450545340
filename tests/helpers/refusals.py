"""Messages that end a command."""

import pytest


def refused(*parts, call):
    """``call`` ends with a message that contains every one of ``parts``."""
    with pytest.raises(SystemExit) as caught:
        call()
    message = str(caught.value)
    for part in parts:
        assert str(part) in message, message
