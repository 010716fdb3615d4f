"""Keys and addresses: what is written in annotations and manifests, and what must never be accepted there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skill_contract.manifest import VersionRef, digest_of, version_name
from skill_store import layout
from skill_store.errors import StoreError

DIGEST = "sha256:" + "3f9c1a7be012" + "0" * 52


def test_a_version_s_line_reads_back():
    ref = VersionRef(version="000042-3f9c1a7be012", digest=DIGEST)
    text = layout.version_uri("s3://models/support-llm/", ref)
    assert text == f"s3://models/support-llm/versions/000042-3f9c1a7be012@{DIGEST}"
    assert layout.Location.parse(text) == layout.Location("s3://models/support-llm", ref.version, DIGEST)


def test_a_repository_alone_means_its_head():
    assert layout.Location.parse(" s3://models/support-llm/ ") == layout.Location("s3://models/support-llm")
    assert layout.Location.parse("file:///m/versions/000000-3f9c1a7be012/").version == "000000-3f9c1a7be012"


@pytest.mark.parametrize(
    "text",
    [
        "s3://b/versions/42",
        "s3://b/versions/000042-3f9c1a7be012/more",
        f"s3://b@{DIGEST}",
        "s3://b/versions/000042-3f9c1a7be012@sha256:12",
        "s3://b/versions/../000042-3f9c1a7be012/versions/x",
    ],
)
def test_a_malformed_address_is_refused_with_its_text(text: str):
    with pytest.raises(StoreError) as refused:
        layout.Location.parse(text)
    assert repr(text) in refused.value.message


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\\b", "a\0b", "."])
def test_a_path_that_leaves_its_folder_is_refused(path: str):
    with pytest.raises(StoreError):
        layout.checked_path(path)


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters="/\\\0"), min_size=1), min_size=1, max_size=4))
def test_a_path_is_accepted_exactly_when_it_is_plain(parts: list[str]):
    path = "/".join(parts)
    if {".", ".."} & set(parts):
        with pytest.raises(StoreError):
            layout.checked_path(path)
    else:
        assert layout.checked_path(path) == path


def test_checkpoints_are_told_from_other_files_of_a_run():
    key = layout.checkpoint_folder("uid", 50) + "model.safetensors"
    assert key == "runs/uid/step-000050/model.safetensors"
    assert layout.checkpoint_step("uid", key) == 50
    assert layout.checkpoint_step("uid", "runs/uid/metrics.jsonl") is None
    assert layout.checkpoint_step("uid", layout.checkpoint_folder("uid", 12_345_678) + "x") == 12_345_678


@given(st.integers(0, 10**7), st.binary())
def test_every_version_name_is_an_address(sequence: int, data: bytes):
    ref = VersionRef(version=version_name(sequence, digest_of(data)), digest=digest_of(data))
    assert layout.Location.parse(layout.version_uri("s3://b/p", ref)).version == ref.version
