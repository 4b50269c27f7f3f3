"""The cards file: what is read, and what is refused with file, card and key named."""

from pathlib import Path

import msgspec
import pytest

from embedsvc.catalog.ad_hoc import ad_hoc_card
from embedsvc.catalog.cards import OF_THE_MODEL, Card
from embedsvc.catalog.cards_file import find_cards_file, read_cards
from embedsvc.errors import CardsError


def read(tmp_path: Path, text: str):
    file = tmp_path / "models.toml"
    file.write_text(text, encoding="utf-8")
    return read_cards(file)


def test_a_card_holds_what_its_table_says(tmp_path: Path) -> None:
    cards = read(
        tmp_path,
        """
        [models."org/name"]
        path = "weights"
        package = "pkg/model"
        repo = "org/name"
        revision = "main"
        aliases = ["short", "text-embedding-3-small"]
        pooling = "cls"
        normalize = false
        max_tokens = 128
        dimensions = [256, 64]
        prompts = {query = "query: ", document = ""}
        dtype = "float16"
        sha256 = "%s"
        preload = true
        """
        % ("a" * 64),
    )
    card = cards.by_id["org/name"]
    assert card.path == tmp_path / "weights"
    assert card.prompts == {"query": "query: ", "document": ""}
    assert card.dimensions == (256, 64)
    assert card.dtype == "float16"
    assert not card.normalize
    assert list(cards.by_name) == ["org/name", "short", "text-embedding-3-small"]
    assert all(known is card for known in cards.by_name.values())


def test_only_a_card_that_a_client_asked_for_is_ad_hoc(tmp_path: Path) -> None:
    in_file = read(tmp_path, "[models.a]\npath = 'a'\n").by_id["a"]
    (tmp_path / "b").mkdir()
    assert not in_file.ad_hoc
    for name in ("org/model", "./b"):
        card = ad_hoc_card(name, tmp_path)
        assert card is not None
        assert card.ad_hoc
        assert msgspec.structs.replace(card, max_tokens=9).ad_hoc
    with pytest.raises(CardsError, match="unknown key `ad_hoc`"):
        read(tmp_path, "[models.a]\npath = 'a'\nad_hoc = true\n")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("path = 'x'\npoolign = 'cls'", "unknown key `poolign`; `pooling` is one"),
        ("path = 'x'\nmax-tokens = 7", "unknown key `max-tokens`; `max_tokens` is one"),
        ("path = 'x'\nxyz = 7", "unknown key `xyz`"),
        ("path = 'x'\n\"a\\nb\" = 7", r"unknown key `a\nb`"),
        (
            "path = 'x'\nprompts = {query = 'q'}\nprompt_aliases = {a = 'qery'}",
            "`prompt_aliases`: `a` is to have a prompt `qery`",
        ),
        ("path = 'x'\ntoken_ids = 'p50k'", "key `token_ids`: invalid enum value 'p50k'"),
        ("path = 'x'\nprompts = {query = 1}", "key `prompts[...]`: expected a string, not a whole"),
        (
            "path = 'x'\nmax_tokens = 'many'",
            "key `max_tokens`: expected a whole number or null",
        ),
        ("path = 'x'\nkeep_alive = 'soon'", "key `keep_alive`: must be a time, as 90, 10m"),
        ("path = 'x'\nkeep_alive = nan", "key `keep_alive`: must be at most 100 years"),
        ("path = 'x'\nkeep_alive = true", "key `keep_alive`: expected a number or null, not true"),
        ("path = 'x'\npooling = 'median'", "key `pooling`: invalid enum value 'median'"),
        ("path = 'x'\naliases = [1]", "key `aliases[0]`: expected a string"),
        ("path = 7", "key `path`: expected"),
        ("path = 'x'\nmax_tokens = 0", "`max_tokens` must be at least 1"),
        ("path = 'x'\ndimensions = [0]", "`dimensions` must be positive"),
        ("path = 'x'\nsha256 = 'abc'", "`sha256` must be 64"),
        ("path = 'x'\nrevision = 'main'", "`revision` goes with `repo`"),
        ("path = 'x'\nid = 'other'", "unknown key `id`"),
        ("pooling = 'cls'", "needs one of `path`, `package` and `repo`"),
        ("path = 'x'\naliases = ['mine']", "the name `mine` is taken by `mine`"),
    ],
)
def test_a_wrong_card_is_refused_by_file_card_and_key(
    tmp_path: Path, table: str, said: str
) -> None:
    with pytest.raises(CardsError) as caught:
        read(tmp_path, f'[models."mine"]\n{table}\n')
    message = str(caught.value)
    assert message.startswith(f'{tmp_path / "models.toml"}: [models."mine"]: ')
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = 3", "no card"),
        ("", "no card"),
        ("[model.x]\npath = 'x'", "unknown key `model`"),
        ("[models.x]\npath = ", r"models\.toml, line 2: Invalid value"),
        ("[models.x]\npath = 'x'\n\n[models.x]\n", r'line 4: \[models\."x"\] is there twice'),
        ("[models.x]\npath = 'x'\npath = 'y'\n", "line 3: this key is there twice"),
        ("[models.x]\npath = 'a\x07b'\n", "line 2: "),
        ("[models.x]\npath = " + "[" * 5000, "nested too deeply|line 2"),
        ("[models]\nx = 'y'", "must be a table"),
        ("[models.'']\npath = 'x'", "an id is not empty"),
        (f"[models.{'x' * 201}]\npath = 'x'", "a model's name has at most 200 characters"),
        (
            "[models.x]\npath = 'x'\naliases = [\"a\\u001bb\"]",
            r"the name `a\\x1bb`: a model's name",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CardsError, match=said) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(caught.value)


@pytest.mark.parametrize(
    ("heading", "name"),
    [
        ("bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("a.b.c", "a.b.c"),
        ("nomic-embed-text-v1.5.prompts", "nomic-embed-text-v1.5"),
    ],
)
def test_a_name_without_its_quotes_is_told_what_to_do(
    tmp_path: Path, heading: str, name: str
) -> None:
    keys = "query = 'q: '" if heading.endswith("prompts") else "path = 'x'\nprompts = {a = 'b'}"
    with pytest.raises(CardsError) as caught:
        read(tmp_path, f"[models.{heading}]\n{keys}\n")
    said = str(caught.value)
    assert f'[models.{name}]: quote the name, [models."{name}"]' in said
    assert "unknown key" not in said


def test_tables_of_a_card_are_no_part_of_its_name(tmp_path: Path) -> None:
    text = "[models.x]\npath = 'x'\n[models.x.prompts]\npath = 'a'\n[models.x.prompt_aliases]\n"
    assert read(tmp_path, text).by_id["x"].prompts == {"path": "a"}


def test_an_alias_that_is_another_cards_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardsError, match=r'"b".*the name `a` is taken by `a`'):
        read(tmp_path, "[models.a]\npath='x'\n[models.b]\npath='x'\naliases=['a']\n")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CardsError, match=r"absent\.toml: No such file"):
        read_cards(tmp_path / "absent.toml")


def test_the_file_is_looked_for_here_then_with_the_user_then_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    user = tmp_path / "config" / "embedsvc" / "models.toml"
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert (
        "all-MiniLM-L6-v2" in read_cards(find_cards_file(None, environ)).by_id
    )  # the packaged one
    user.parent.mkdir(parents=True)
    user.touch()
    assert find_cards_file(None, environ) == user
    Path("models.toml").touch()
    assert find_cards_file(None, environ) == Path("models.toml")
    assert find_cards_file(Path("given.toml"), environ) == Path("given.toml")


def test_a_card_may_be_like_another_of_the_same_model(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(
        """
        [models.original]
        repo = "somebody/original"
        revision = "main"
        aliases = ["first"]
        prompts = {query = "q: "}
        prompt_aliases = {first-query = "query"}
        normalize = true
        max_tokens = 100
        preload = true
        [models.converted]
        repo = "mlx-community/original-4bit"
        like = "original"
        max_tokens = 50
        """
    )
    card = read_cards(file).by_id["converted"]
    assert (card.prompts, card.normalize, card.max_tokens) == ({"query": "q: "}, True, 50)
    assert card.repo == "mlx-community/original-4bit"
    assert (card.revision, card.aliases, card.prompt_aliases, card.preload) == (None, (), {}, False)


def test_a_card_may_be_like_one_that_is_shipped(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    for name in ("gemma", "embeddinggemma-300m"):
        file.write_text(f'[models.{name}]\npath = "gemma"\nlike = "embeddinggemma-300m"\n')
        cards = read_cards(file)
        assert list(cards.by_id) == [name]
        assert cards.by_id[name].plain_tokens == ("<image_soft_token>",)
        assert cards.by_id[name].repo is None


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ('"missing"', "key `like`: no card has the id `missing`"),
        ('"b"', "key `like`: `b` is like another itself; name that"),
        ('"a"', "key `like`: no card has the id `a`"),
        ("3", "key `like`: expected a string or null, not a whole number"),
    ],
)
def test_a_card_that_is_like_none_is_refused(tmp_path: Path, like: str, said: str) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'[models.a]\npath = "a"\nlike = {like}\n[models.b]\npath = "b"\nlike = "c"\n')
    with pytest.raises(CardsError, match=said) as refused:
        read_cards(file)
    assert '[models."a"]' in str(refused.value)


def test_each_key_of_a_card_is_of_the_model_or_of_its_files_and_life() -> None:
    others = {"id", "path", "package", "repo", "revision", "adapter", "like", "aliases",
              "prompt_aliases", "sha256", "preload", "pin", "keep_alive"}  # fmt: skip
    assert {*OF_THE_MODEL, *others} == set(Card.__struct_fields__)
    assert not others & {*OF_THE_MODEL}
