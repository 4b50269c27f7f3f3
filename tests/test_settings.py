"""Settings: from the command line, else the environment, else as they are."""

from pathlib import Path

import msgspec
import pytest

from embedsvc.cli import _parser
from embedsvc.errors import CardsError
from embedsvc.settings import Settings, read_settings

VALUES = {
    "backend": "numpy",
    "dtype": "int8",
    "insecure": "true",
    "truncate": "end",
    "allow_ad_hoc": "true",
    "log_level": "debug",
    "log_format": "json",
}


def test_every_setting_is_an_environment_variable_and_all_but_the_keys_an_option() -> None:
    for field in msgspec.structs.fields(Settings):
        value = VALUES.get(field.name, "9")
        settings = read_settings({}, {f"EMBEDSVC_{field.name.upper()}": value})
        assert settings != Settings()
        option = [f"--{field.name.replace('_', '-')}", value]
        if field.name == "api_keys":
            with pytest.raises(SystemExit):
                _parser(["serve"]).parse_args(["serve", *option])
            continue
        first = option[: 1 if field.type is bool else 2]
        given = vars(_parser(["serve"]).parse_args(["serve", *first]))
        assert read_settings(given, {}) == settings


def test_lists_are_separated_by_commas_or_spaces() -> None:
    settings = read_settings(
        {"allowed_hosts": "a.example, b.example"}, {"EMBEDSVC_API_KEYS": "x y"}
    )
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert settings.api_keys == ("x", "y")


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"EMBEDSVC_PORT": "9000", "EMBEDSVC_MODELS": "~/cards.toml", "EMBEDSVC_HOST": ""}
    settings = read_settings({"port": "9001", "models": None}, environ)
    assert settings.port == 9001
    assert settings.models == Path.home() / "cards.toml"
    assert settings.host == "localhost"  # set to nothing is not set


@pytest.mark.parametrize("name", ["max_batch_tokens", "cache_folder_bytes", "shutdown_seconds"])
def test_a_limit_below_its_least_is_refused_by_name(name: str) -> None:
    with pytest.raises(CardsError, match=rf"^--{name.replace('_', '-')}=0: must be at least 1$"):
        read_settings({name: "0"}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("API_KEYS", value) for value in ("", " ", " , ", ",,", "\t")),
        *(("API_KEYS_FILE", value) for value in ("", " ")),
    ],
)
def test_a_variable_of_keys_that_holds_none_does_not_open_the_server(name: str, value: str) -> None:
    with pytest.raises(CardsError, match=rf"^EMBEDSVC_{name}=.*: there is nothing in it$"):
        read_settings({}, {f"EMBEDSVC_{name}": value})


@pytest.mark.parametrize("name", ["allowed_hosts", "cors_origins"])
def test_a_list_with_nothing_in_it_is_refused(name: str) -> None:
    with pytest.raises(CardsError, match="there is nothing in it"):
        read_settings({name: " , "}, {})
