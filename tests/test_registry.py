"""Block types are found in installed packages; a broken package harms nobody but those who want its blocks."""

import sys

import pytest

from flowgraph import registry
from flowgraph.block import BlockError

BLOCK = """
from flowgraph.block import Block
class {name}(Block):
    "A block."
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package: its modules by path, and its entry points by value."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def entry_points(*, group):
        return [entry for entry in found(group=group) if entry.dist.metadata["Name"].startswith("toy-")]

    def install(package, modules, *values):
        for path, text in modules.items():
            file = tmp_path / package / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        info = tmp_path / f"toy_{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: toy-{package}\nVersion: 1\n")
        lines = "".join(f"e{number} = {value}\n" for number, value in enumerate(values))
        (info / "entry_points.txt").write_text(f"[semflow.blocks]\n{lines}")

    found = registry.entry_points
    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._scan.cache_clear()
    yield install
    registry._scan.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def failure(name):
    with pytest.raises(BlockError) as caught:
        registry.find(name)
    return str(caught.value)


def test_a_package_is_walked_to_its_leaves(install):
    modules = {
        "__init__.py": BLOCK.format(name="TopBlock"),
        "radio/__init__.py": "from mine import TopBlock\n",  # imported here, not defined
        "radio/notch.py": BLOCK.format(name="NotchFilter") + BLOCK.format(name="_Base"),
        "__main__.py": "raise SystemExit('this is a program')",
    }
    install("mine", modules, "mine")
    assert list(registry.all_blocks()) == ["notch_filter", "top_block"]
    assert registry.find("notch_filter").__module__ == "mine.radio.notch"


def test_an_entry_point_may_name_one_class(install):
    text = BLOCK.format(name="One") + BLOCK.format(name="Two")
    install("single", {"__init__.py": text}, "single:One", "single:Three", "single:Block.key")
    assert list(registry.all_blocks()) == ["one"]
    assert (
        failure("two") == "must be a block type (one), not 'two'; single:Block.key could not be imported: single has "
        "no block Block.key; single:Three could not be imported: single has no block Three"
    )


def test_a_module_that_fails_is_told_when_a_block_is_missing(install):
    modules = {
        "__init__.py": "",
        "good.py": BLOCK.format(name="Good"),
        "bad.py": "import no_such_library",
        "worse.py": "def f(:",
        "worst.py": "raise RuntimeError('two\\nlines')",
    }
    install("half", modules, "half", "not_there_at_all")
    assert registry.find("good").type_name() == "good"
    said = failure("god")
    assert said.startswith("must be a block type, not 'god' (did you mean 'good'?)")
    assert "; half.bad could not be imported: ModuleNotFoundError: No module named 'no_such_library'" in said
    assert "; half.worse could not be imported: SyntaxError: " in said
    assert "; half.worst could not be imported: RuntimeError: two lines" in said
    assert "; not_there_at_all could not be imported: ModuleNotFoundError" in said
    assert set(registry.failures()) == {"half.bad", "half.worse", "half.worst", "not_there_at_all"}


def test_two_blocks_of_one_name_are_refused_with_both_places(install):
    install("left", {"__init__.py": BLOCK.format(name="Same") + BLOCK.format(name="Own")}, "left")
    install("right", {"__init__.py": BLOCK.format(name="Same")}, "right")
    wanted = "must be one block type, not two: 'same' is left.Same and right.Same; rename one or uninstall its package"
    assert failure("same") == wanted
    assert registry.find("own").__module__ == "left"
    with pytest.raises(BlockError, match=r"left\.Same and right\.Same"):
        registry.all_blocks()


def test_a_block_offered_twice_is_still_one(install):
    install("twice", {"__init__.py": BLOCK.format(name="Same")}, "twice", "twice:Same")
    assert registry.find("same").__module__ == "twice"


def test_our_own_blocks_are_found_as_any_others():
    assert "qam_mapper" in registry.all_blocks()


def test_a_script_that_exits_on_import_is_named_and_harms_no_other(install):
    install(
        "mine",
        {"__init__.py": "", "script.py": "raise SystemExit('usage: script')", "good.py": BLOCK.format(name="Good")},
        "mine",
    )
    assert list(registry.all_blocks()) == ["good"]
    assert "mine.script could not be imported: SystemExit: usage: script" in failure("script")
