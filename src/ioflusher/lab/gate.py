"""What passes here can be made to wait, from another thread."""

import threading


class Gate:
    """Lets threads pass at once, after a delay, or not until told otherwise."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._delay_s: float | None = 0.0
        self._shut = False

    def delay(self, seconds: float | None) -> None:
        """Whoever passes waits so long from now on, those that wait already too; None: until told."""
        with self._changed:
            self._delay_s = seconds
            self._changed.notify_all()

    def shut(self) -> None:
        """Nobody passes any more."""
        with self._changed:
            self._shut = True
            self._changed.notify_all()

    def passed(self) -> bool:
        """Wait as long as it takes; False once it is shut."""
        with self._changed:
            while (delay_s := self._delay_s) != 0.0 and not self._shut:
                # a delay that was changed meanwhile begins anew
                if not self._changed.wait(delay_s):
                    break
            return not self._shut
