"""The programs that the tests build: every module has its entry, every entry its module."""

from tests.cluster.binaries import CATALOGUE, MODULES
from tests.cluster.fixtures import _NOT_OF_THE_CLUSTER


def test_the_catalogue_names_every_module():
    assert sorted(CATALOGUE) == sorted(folder.name for folder in MODULES.iterdir() if folder.is_dir())
    assert set(CATALOGUE) > _NOT_OF_THE_CLUSTER
