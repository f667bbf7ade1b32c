"""A reporter that keeps what is said."""

from pipeline.progress import Reporter


class Listener(Reporter):
    """Keeps what is said; `stop_at`: says no more after a line that begins like this, as Ctrl-C does."""

    def __init__(self, stop_at=None, **settings):
        super().__init__(quiet=True, **settings)
        self.lines, self.stop_at = [], stop_at

    def say(self, text):
        self.lines += text.split("\n")
        if self.stop_at and text.startswith(self.stop_at):
            raise KeyboardInterrupt
