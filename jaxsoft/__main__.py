"""`python -m jaxsoft` is the command line."""

from jaxsoft.cli import script

script()
