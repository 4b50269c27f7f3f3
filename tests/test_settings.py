"""Settings: from the command line, else the environment, else as they are."""

from pathlib import Path

import msgspec
import pytest

from embedsvc.cli import _parser
from embedsvc.errors import CardsError
from embedsvc.settings import Settings, read_settings


def test_every_setting_is_an_option_and_an_environment_variable() -> None:
    for field in msgspec.structs.fields(Settings):
        value = "numpy" if field.name == "backend" else "9"
        option = f"--{field.name.replace('_', '-')}"
        given = read_settings(vars(_parser().parse_args(["serve", option, value])), {})
        from_environment = read_settings({}, {f"EMBEDSVC_{field.name.upper()}": value})
        assert given == from_environment != Settings()
        assert str(getattr(given, field.name)).removesuffix(".0") == value


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"EMBEDSVC_PORT": "9000", "EMBEDSVC_MODELS": "~/cards.toml", "EMBEDSVC_HOST": ""}
    settings = read_settings({"port": "9001", "models": None}, environ)
    assert settings.port == 9001
    assert settings.models == Path.home() / "cards.toml"
    assert settings.host == "127.0.0.1"  # set to nothing is not set


@pytest.mark.parametrize("name", ["max_batch_tokens", "cache_folder_bytes", "shutdown_seconds"])
def test_a_limit_below_its_least_is_refused_by_name(name: str) -> None:
    with pytest.raises(CardsError, match=f"{name} must be at least 1, not"):
        read_settings({name: "0"}, {})
