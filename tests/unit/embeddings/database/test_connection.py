"""Where the URL of PostgreSQL comes from."""

import pytest

from embeddings.database.connection import DATABASE_VARIABLE, database_url
from embeddings.errors import InvalidInput

SECRET = "postgresql://shop:secret@db.example:5432/shop"
OPEN = "postgresql://shop@db.example:5432/shop"


def test_the_environment_may_hold_a_password_and_the_command_line_goes_first():
    assert database_url(None, {DATABASE_VARIABLE: SECRET}) == SECRET
    assert database_url(OPEN, {DATABASE_VARIABLE: SECRET}) == OPEN
    assert database_url("postgresql://shop:@/shop?host=/run", {}) == "postgresql://shop:@/shop?host=/run"


@pytest.mark.parametrize("environment", [{}, {DATABASE_VARIABLE: ""}])
def test_without_a_url_there_is_none(environment: dict[str, str]):
    assert database_url(None, environment) is None


@pytest.mark.parametrize("url", [SECRET, "postgresql:///shop?user=shop&password=secret"])
def test_a_password_on_the_command_line_is_refused_and_not_repeated(url: str):
    with pytest.raises(InvalidInput, match=DATABASE_VARIABLE) as told:
        database_url(url, {})
    assert "secret" not in str(told.value)
