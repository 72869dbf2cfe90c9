"""How to install the optional parts, for the errors that report a missing one.

No distribution is on a package index yet, so the commands name the repository. CONTRIBUTING.md's release checklist says
when to shorten them.
"""

REPOSITORY = "git+https://github.com/pgrecall/pgrecall"


def install_extra(extra: str) -> str:
    """The command that installs an extra of pgrecall."""
    return f'pip install "pgrecall[{extra}] @ {REPOSITORY}" (in a checkout: pip install ".[{extra}]")'


def install_adapter(name: str, folder: str) -> str:
    """The command that installs the adapter that `integrations/<folder>` holds."""
    address = f"{REPOSITORY}#subdirectory=integrations/{folder}"
    return f'pip install "{name} @ {address}" (in a checkout: pip install ./integrations/{folder})'
