"""Files that blocks' parameters name: which of a folder are read, and which not."""

from flowgraph import control


def test_of_a_folder_only_files_of_the_wanted_kind_are_looked_at(tmp_path):
    for name in ("b.PNG", "a.png", "notes.txt", "video.mp4"):
        (tmp_path / name).write_bytes(b"x")
    names = [path.name for path in control.matching_files(str(tmp_path), {".png"})]
    assert names == ["a.png", "b.PNG"]
    assert len(control.matching_files(str(tmp_path))) == 4
    assert [path.name for path in control.matching_files(f"{tmp_path}/*", {".txt"})] == ["notes.txt"]
    assert control.matching_files(str(tmp_path / "video.mp4"), {".png"}) == [tmp_path / "video.mp4"]


def test_a_file_that_is_too_large_is_not_read_but_told(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(300 << 30)  # sparse: it takes no room
    content = control.read_file(tmp_path / "huge.png")
    assert (content.name, content.data, content.error) == ("huge.png", b"", "it has more than the 200 MiB allowed")
