"""`muster pyz`: the one file that runs parts of workflows where Muster is not installed."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.plain import safe
from app.errors import InvalidInput
from app.pyz import archive, contents


@click.command(short_help="Build muster.pyz, which runs workflows where Muster is not installed.")
@click.argument("file", default="muster.pyz", type=click.Path(dir_okay=False, path_type=Path))
def pyz(file: Path) -> None:
    """Build muster.pyz: one file that runs parts of workflows (`run`) and checks workflows (`validate`) on any
    machine with Python 3.11 or newer. Nothing else need be there.

    The same version of Muster gives the same bytes.
    """
    made = archive.build(contents.modules(), contents.rest())
    try:
        archive.write(file, made)
    except OSError as error:
        raise InvalidInput(
            f"{file} cannot be written: {error.strerror}", hint="give the path of a file"
        ) from None
    click.echo(f"{safe(str(file))}: {len(made)} bytes")
