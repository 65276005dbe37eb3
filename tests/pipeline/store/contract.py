"""What both faces of a store promise. A test class of each face inherits these tests and gives a `store` fixture."""

import threading
from pathlib import Path

import pytest

from pipeline.store import BadPath, Conflict, Corrupt, NotFound, Store

BAD_PATHS = [
    "",
    "/abs",
    "a//b",
    "../x",
    "a/../../x",
    "a/.",
    "a\\b",
    "a\nb",
    "a\0b",
    "x" * 256,
    "/".join(["d" * 200] * 6),
]


class StoreContract:
    """Inherited by the tests of each face."""

    def test_what_is_created_is_read_back(self, store: Store):
        assert store.create("tokens/a.parquet", b"one")
        assert store.read("tokens/a.parquet") == b"one"
        assert store.size("tokens/a.parquet") == 3

    def test_an_empty_file_is_a_file(self, store: Store):
        assert store.create("empty", b"")
        assert store.size("empty") == 0
        assert store.read("empty") == b""

    def test_nothing_there(self, store: Store):
        assert store.size("nothing") is None
        assert store.version("nothing") is None
        with pytest.raises(NotFound, match=r"nothing is not there: was the output moved or its run not finished\?"):
            store.read("nothing")

    def test_equal_content_again_is_no_conflict(self, store: Store):
        assert store.create("a", b"one")
        assert not store.create("a", b"one")

    def test_other_content_is_a_conflict_and_the_first_stays(self, store: Store):
        store.create("a", b"one")
        with pytest.raises(Conflict, match="a already holds other content: it is kept; choose another output"):
            store.create("a", b"two")
        assert store.read("a") == b"one"

    def test_a_local_file_is_created_without_being_loaded(self, store: Store, tmp_path: Path):
        source = tmp_path / "source"
        source.write_bytes(b"x" * 100_000)
        assert store.create("big", source)
        assert not store.create("big", b"x" * 100_000)
        assert store.size("big") == 100_000

    def test_flipped_bits_are_found_by_sha256(self, store: Store):
        store.create("a", b"one")
        with pytest.raises(
            Corrupt, match=r"a has sha256 7692c3ad3540bb80, its record says 0{16}: the stored bytes changed"
        ):
            store.read("a", sha256="0" * 64)

    def test_files_can_be_read_from_the_middle(self, store: Store):
        store.create("a", b"0123456789")
        with store.open("a") as file:
            file.seek(7)
            assert file.read() == b"789"

    def test_list_is_sorted_and_by_prefix(self, store: Store):
        for path in ("b/2", "a", "b/1", "c/d/e", "bc"):
            store.create(path, b"x")
        assert [entry.path for entry in store.list()] == ["a", "b/1", "b/2", "bc", "c/d/e"]
        assert [(entry.path, entry.size) for entry in store.list("b/")] == [("b/1", 1), ("b/2", 1)]
        assert list(store.list("nothing/")) == []

    def test_replace_compares_and_swaps(self, store: Store):
        store.create("m", b"one")
        before = store.version("m")
        store.replace("m", b"two", expected=before)
        assert store.read("m") == b"two"
        assert store.version("m") != before
        with pytest.raises(Conflict, match="m was replaced by another run meanwhile: stop one of them, run again"):
            store.replace("m", b"three", expected=before)
        assert store.read("m") == b"two"

    def test_a_replacement_repeated_is_no_conflict(self, store: Store):
        store.create("m", b"one")
        before = store.version("m")
        store.replace("m", b"two", expected=before)
        store.replace("m", b"two", expected=before)
        assert store.read("m") == b"two"

    def test_put_writes_whatever_is_there(self, store: Store):
        for content in (b"one", b"two", b"two"):
            store.put("card", content)
            assert store.read("card") == content

    @pytest.mark.parametrize("path", BAD_PATHS, ids=range(len(BAD_PATHS)))
    def test_paths_that_could_leave_the_store_are_refused(self, store: Store, path: str):
        for operation in (store.read, store.size, store.version, lambda path: store.create(path, b"x")):
            with pytest.raises(BadPath, match="path "):
                operation(path)

    @pytest.mark.parametrize("name", ["é", "e\u0301", "日本", "a b", "%2e%2e", "a?b#c", "A", "a"])
    def test_odd_names_are_kept_as_they_are(self, store: Store, name: str):
        store.create(f"x/{name}", name.encode())
        assert store.read(f"x/{name}") == name.encode()
        assert [entry.path for entry in store.list("x/")] == [f"x/{name}"]

    def test_of_many_threads_one_creates(self, store: Store):
        created, refused = [], []

        def write(n: int) -> None:
            try:
                created.append(store.create("raced", b"%d" % n) and n)
            except Conflict:
                refused.append(n)

        threads = [threading.Thread(target=write, args=(n,)) for n in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(created) == 1
        assert len(refused) == 7
        assert store.read("raced") == b"%d" % created[0]

    def test_each_keeps_the_order_and_takes_few_items_early(self, store: Store):
        taken = []

        def items():
            for n in range(50):
                taken.append(n)
                yield n

        results = store.each(lambda n: n * n, items())
        assert [next(results), next(results)] == [0, 1]
        assert len(taken) <= store.parallel + 2
        assert list(results) == [n * n for n in range(2, 50)]

    def test_closing_twice_is_fine(self, store: Store):
        store.close()
        store.close()
