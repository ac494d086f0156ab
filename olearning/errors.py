"""How a command ends: in words, with an exit code that says which kind of end it was."""

OK, FAILED, USAGE, NO_BROKER, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    f"Exit codes: {OK} done, {FAILED} failed, {USAGE} wrong usage or a bad file, {NO_BROKER} no broker, "
    f"{INTERRUPTED} interrupted. SIGTERM ends a command in good order, with {OK} or 143."
)
TERMINATED = 143


class Trouble(Exception):
    """Ends the command; the text says what is wrong and what to do."""

    def __init__(self, text: str, code: int = FAILED):
        super().__init__(text)
        self.code = code
