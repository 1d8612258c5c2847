from conftest import ROOT
from tfbatch.tasks import task_names
from tfbatch_export.families import family_names
from tfbatch_export.page import page


def test_the_page_of_models_is_what_families_and_tasks_say_of_themselves() -> None:
    written = (ROOT / "docs" / "models.md").read_text()
    assert written == page(), "run `make docs`"
    for name in family_names():
        assert f"| `{name}` |" in written
    for name in task_names():
        assert f"### {name}\n" in written
