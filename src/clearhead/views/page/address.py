"""The address of the Lens page that shows the same as a command."""

from pathlib import Path
from urllib.parse import urlencode

LONGEST = 2000  # characters; a terminal still shows an address of this length well


def lens_address(
    text: str,
    model: str | None = None,
    *,
    second: str | None = None,
    target: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    rollout: bool = False,
    units: str = "tokens",
) -> str | None:
    """Return the path of the page in the studio, or None for a text too long for an address.

    A model's folder is named in full: the studio may have been started in another one.

    >>> lens_address("a cat", layer=5, head=11)
    '/lens?text=a+cat&layer=5&head=11&token=-1'
    """
    fields: dict[str, object] = {"text": text}
    named = {"model": _in_full(model), "second": _in_full(second), "target": target}
    fields |= {name: value for name, value in named.items() if value is not None}
    if rollout:
        fields["rollout"] = 1
    if units != "tokens":
        fields["units"] = units
    if layer is not None or head is not None:
        fields |= {"layer": layer or 0, "head": head or 0, "token": -1}
    address = f"/lens?{urlencode(fields)}"
    return address if len(address) <= LONGEST else None


def _in_full(model: str | None) -> str | None:
    """The whole path of a model that is named by a relative one."""
    is_folder = model is not None and (Path(model) / "config.json").is_file()
    return str(Path(model).absolute()) if model is not None and is_folder else model
