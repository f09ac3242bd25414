"""Questions to the person at the terminal. Owns that an answer which ends the command has its documented exit code."""

import typer


def says_yes(question: str) -> bool:
    """Raises KeyboardInterrupt without an answer: Ctrl-C at a question is no bug of ours, as typer's Abort would be."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


def asked_passphrase(twice: bool = False) -> str:
    """A passphrase that is not shown, typed `twice` where a new one begins. Raises KeyboardInterrupt without one."""
    try:
        words: str = typer.prompt(
            "Passphrase", hide_input=True, confirmation_prompt=twice, err=True
        )
    except typer.Abort:
        raise KeyboardInterrupt from None
    return words
