"""HTML pages from the templates of this package. Needs the extra `ioflusher[lab]`."""

from typing import Any

from ioflusher.errors import IoflusherError
from ioflusher.support.text import printable


def render_template(name: str, **values: Any) -> str:
    """A page of a template of this package; what is put into it is escaped.

    Raises:
        IoflusherError: jinja2 is missing.
    """
    try:
        import jinja2
    except ImportError as error:
        raise missing_package(error) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ioflusher.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = printable
    return environment.get_template(name).render(**values)


def missing_package(error: ImportError) -> IoflusherError:
    """What is said where a report needs a package."""
    return IoflusherError(
        f"reports need a package that is not installed: {error.name}",
        hint="pip install 'ioflusher[lab]'",
    )
