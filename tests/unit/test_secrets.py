import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.config import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://me:hunter2@db:5432/mlflow", "postgresql+psycopg2://me:***@db:5432/mlflow"),
        ("http://me:hun@ter2@host/path", "http://me:***@host/path"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("/home/me/s3:/key:hunter2@bucket/a", "/home/me/s3:/key:***@bucket/a"),
        ("postgresql://db/mlflow?user=me&password=hunter2&sslmode=require", None),
        ("s3://bucket/a?X-Amz-Signature=hunter2&b=c", "s3://bucket/a?X-Amz-Signature=***&b=c"),
        ("http://host/a?access_token=hunter2", "http://host/a?access_token=***"),
        ("https://hunter2@host/path", "https://***@host/path"),
        ("git+https://hunter2@host:8080/a@v1", "git+https://***@host:8080/a@v1"),
        ("https:/hunter2@host/path", "https:/***@host/path"),
        ("https://account.blob/a?sv=1&sig=hunter2%3D&se=2", "https://account.blob/a?sv=1&sig=***&se=2"),
        ("https://host/a?auth=hunter2", "https://host/a?auth=***"),
        ("https://host/a?x-auth=hunter2&b=c", "https://host/a?x-auth=***&b=c"),
        ("https://host/a?Authorization=hunter2", "https://host/a?Authorization=***"),
        ("https://host/a#access_token=hunter2", "https://host/a#access_token=***"),
        ("cannot reach a://u:hunter2@h, nor b://v:hunter2@i", "cannot reach a://u:***@h, nor b://v:***@i"),
    ],
)
def test_what_is_secret_is_not_shown(text, shown):
    if shown is not None:
        assert without_passwords(text) == shown
    assert "hunter2" not in without_passwords(text)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/mlflow.db",
        "http://host:5000",
        "postgresql://me@host/mlflow",
        "hdfs://me@host/a",
        "https://host/a?author=me&design=x&encode=utf-8",
        "https://host/@me/a",
        "data/a.jsonl",
        "step 3: loss 0.5 @ 7:30",
        "",
    ],
)
def test_what_is_not_secret_stays(text):
    assert without_passwords(text) == text


WORDS = st.text("abcXYZ019.-_", min_size=1, max_size=8)
SECRETS = st.text("abcXYZ019.-_:@!$%^*()+,?#[]{}|~", min_size=1, max_size=12)


@given(WORDS, WORDS, SECRETS, WORDS, WORDS)
def test_no_password_survives_in_a_uri(scheme, user, secret, host, path):
    shown = without_passwords(f"{scheme}://{user}:{secret}@{host}/{path}")
    assert shown == f"{scheme}://{user}:***@{host}/{path}"


def test_a_message_is_one_line_whatever_values_it_names():
    from hbtrain.errors import DataError

    assert str(DataError("source 'two\nlines\r\n' is missing")) == "source 'two lines ' is missing"
