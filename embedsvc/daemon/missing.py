"""What a service will miss though the server that is run by hand has it."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

import embedsvc
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.daemon.environment import FOLDERS, NOT_READ
from embedsvc.daemon.places import Place, kept_by_macos, kept_from_made_up_users
from embedsvc.daemon.spec import ServiceSpec
from embedsvc.errors import CardsError
from embedsvc.settings import Settings, variable

NEEDED = (
    *("EMBEDSVC_API_KEYS_FILE", "EMBEDSVC_TLS_CERT", "EMBEDSVC_TLS_KEY"),
    *("HF_TOKEN_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)
"""Variables with files that must be there: nobody makes them."""


def warnings_of(spec: ServiceSpec, settings: Settings, values: Mapping[str, str]) -> list[str]:
    """What to tell whoever installs the service. `values` are the variables that it is to have."""
    found = [f"{each.what}: there is no {each.path}" for each in _set(settings, values)
             if each.what in NEEDED and not _is_there(each.path)]  # fmt: skip
    try:
        _models(settings)
    except CardsError as error:
        found.append(str(error))
    found += hidden(spec, settings, values)
    for name in NOT_READ:
        if os.environ.get(name) and "SSL_CERT_FILE" not in values:
            found.append(
                f"{name} is set, which this server does not read: if the hub needs its "
                "certificates, set SSL_CERT_FILE to them and install again"
            )
    return found


def hidden(spec: ServiceSpec, settings: Settings, values: Mapping[str, str]) -> list[str]:
    """What to say of places that the service may not read, though its user may."""
    places = _set(settings, values)
    with suppress(CardsError):
        places += _models(settings)
    if sys.platform == "darwin":
        return kept_by_macos([*_program(), *places], spec.home, Path(sys.executable))
    if spec.system and spec.user is None:
        return kept_from_made_up_users(places)
    return []


def _program() -> list[Place]:
    return [
        Place("its program", Path(embedsvc.__file__).parent),
        Place("its Python", Path(sys.prefix)),
    ]


def _set(settings: Settings, values: Mapping[str, str]) -> list[Place]:
    """The paths that settings and variables name."""
    named = {variable(each.name): getattr(settings, each.name) for each in _fields()}
    named |= {name: Path(values[name]) for name in FOLDERS if name in values}
    return [Place(name, path) for name, path in named.items() if isinstance(path, Path)]


def _models(settings: Settings) -> list[Place]:
    """The cards file, if no setting names it, and the folders that its cards name."""
    file = find_cards_file(settings.models)
    places = [] if settings.models else [Place("its cards file", file)]
    cards = read_cards(file).by_id.values()
    return places + [Place(f"the model `{card.id}`", card.path) for card in cards if card.path]


def _fields() -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(Settings)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
