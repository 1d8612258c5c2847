"""From object store to object store: a real server, the real command line."""

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Finished, read_output, run_tfbatch, tfbatch_env, tree, write_reviews
from pictures import PictureModel, write_pictures
from s3 import KEYS, S3, never_answer, slow_store
from tfbatch import errors
from tfbatch.inputs.addresses import place_of, scheme_of
from tfbatch.inputs.sources import find_sources
from tfbatch.outputs.holder import is_gone, mark
from tfbatch.outputs.lease import Lease


def score(s3: S3, bundle: Path, *words: object, source: str = "in", to: str = "out") -> Finished:
    address = f"s3://{s3.bucket}"
    return run_tfbatch("run", f"{address}/{source}", "-m", bundle, "-o", f"{address}/{to}", *words, env=s3.env)


def table_of(s3: S3, folder: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(io.BytesIO(content)) for content in s3.parts(folder).values()])


def test_a_bucket_gets_the_rows_that_a_folder_gets(s3: S3, reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    s3.put("in/day=1/reviews.parquet", reviews)
    s3.put("in/day=2/more.parquet", write_reviews(tmp_path / "more.parquet", 50))
    s3.put("in/_SUCCESS", b"no table")
    done = score(s3, text_bundle, "--rows-per-part", 300)
    assert done.code == 0, done.err
    assert (done.result["rows"], done.result["parts"]) == (1050, 5)
    assert len([name for name in s3.names("out/day=1") if name.endswith(".parquet")]) == 4
    local = run_tfbatch("run", reviews, tmp_path / "more.parquet", "-m", text_bundle, "-o", tmp_path / "local")
    assert local.code == 0
    assert table_of(s3, "out").equals(read_output(tmp_path / "local"))
    assert json.loads(s3.get("out/_SUCCESS"))["rows"] == 1050
    assert score(s3, text_bundle, "--rows-per-part", 300).result["status"] == "already done"


def test_workers_put_what_one_process_puts(s3: S3, reviews: Path, text_bundle: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    assert score(s3, text_bundle, "--rows-per-part", 200).code == 0
    done = score(s3, text_bundle, "--rows-per-part", 200, "--workers", 2, to="shared")
    assert done.code == 0, done.err
    assert done.result["workers"] == 2
    assert s3.parts("shared") == s3.parts("out")


def test_what_is_missing_or_changed_in_a_bucket_is_made_anew(s3: S3, reviews: Path, text_bundle: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    words = ("--rows-per-part", 300)
    assert score(s3, text_bundle, *words).code == 0
    whole = s3.parts("out")
    first, second, *_ = (f"out/{name}" for name in whole)
    import obstore

    obstore.delete(s3.store, first)
    s3.put(second, bytes(len(s3.get(second))))
    assert score(s3, text_bundle, *words).result["status"] == "done"
    assert s3.parts("out") != whole, "its size is the same, so only --verify sees it"
    assert score(s3, text_bundle, *words, "--verify").result["status"] == "done"
    assert s3.parts("out") == whole


def test_pictures_in_files_go_to_a_bucket_too(s3: S3, picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 20)
    words = ["--images", "files", "--keep-mask", "--contact-sheet", 3, "--rows-per-part", 10]
    bundle = picture_model("vit")[1]
    assert run_tfbatch("run", source, "-m", bundle, "-o", tmp_path / "out", *words).code == 0
    address = f"s3://{s3.bucket}/out"
    done = run_tfbatch("run", source, "-m", bundle, "-o", address, *words, env=s3.env)
    assert done.code == 0, done.err
    local = {
        str(file.relative_to(tmp_path)): file.read_bytes() for file in (tmp_path / "out" / "_images").rglob("*.png")
    }
    assert {name: s3.get(name) for name in s3.names("out/_images")} == local
    assert s3.get("out/_tfbatch/contact_sheet.png").startswith(b"\x89PNG")
    assert len(local) == len(tree(tmp_path / "out")) - 2
    assert (
        run_tfbatch("run", source, "-m", bundle, "-o", address, *words, env=s3.env).result["status"] == "already done"
    )


def test_a_process_of_another_numbering_is_not_known_to_be_gone() -> None:
    nobody = {"process": 2**22 + 1, "began": "1"}
    assert not is_gone(mark())
    assert is_gone(mark() | nobody)
    for name in ("host", "boot", "space"):
        assert not is_gone(mark() | nobody | {name: "another"})


def lease(**changes: Any) -> bytes:
    content = {"holder": "process 7 on elsewhere since noon", "token": "x", "until": time.time() + 60}
    return json.dumps(content | changes).encode()


def test_a_bucket_that_another_writes_to_is_refused_naming_it(s3: S3, reviews: Path, text_bundle: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    s3.put("out/_tfbatch/lock", lease())
    done = score(s3, text_bundle)
    assert done.code == errors.TryAgain.exit_code
    assert "process 7 on elsewhere since noon" in done.err
    assert s3.names("out") == ["out/_tfbatch/lock"]


def test_a_lease_that_ran_out_or_whose_process_is_gone_is_taken_over(s3: S3, reviews: Path, text_bundle: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    left = mark() | {"process": gone.pid}
    gone.wait()
    for content in (lease(until=time.time() - 3600), lease(**left), b"{}", b"not a lease"):
        s3.put("out/_tfbatch/lock", content)
        done = score(s3, text_bundle, "--overwrite", "--limit", 5)
        assert done.code == 0, (content, done.err)
    held = lease(**mark())
    s3.put("out/_tfbatch/lock", held)
    assert score(s3, text_bundle, "--overwrite").code == errors.TryAgain.exit_code, "this test is still there"


def test_a_lease_that_was_taken_over_is_lost_for_good(s3: S3) -> None:
    first, second = (Lease(s3.store, "lock", "out") for _ in range(2))
    first.take()
    first.renew()
    first.ensure()
    s3.put("lock", lease(until=0))
    second.take()
    for _ in range(2):
        first.renew()
        with pytest.raises(errors.TryAgain, match="another process took it over"):
            first.ensure()
    first.release()
    second.renew()
    second.ensure()
    second.release()
    assert s3.get("lock") == b"{}"


def test_refusals_say_what_was_found_and_touch_nothing(s3: S3, reviews: Path, text_bundle: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    s3.put("theirs/letter.txt", b"dear")
    before = s3.names()
    for code, to, source, reason in (
        (73, "theirs", "in", "holds what is not tfbatch's"),
        (73, "in/deeper", "in", "lie in one another"),
        (2, "out.parquet", "in", "name a folder"),
        (66, "out", "nothing", "does not exist or matches nothing"),
        (66, "out", "in/*/x.parquet", "does not exist or matches nothing"),
    ):
        done = score(s3, text_bundle, source=source, to=to)
        assert (done.code, reason in done.err) == (code, True), done.err
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", "s3://not-there/out", env=s3.env)
    assert (done.code, "cannot be used" in done.err) == (73, True), done.err
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", "http://elsewhere/out", env=s3.env)
    assert (done.code, "s3://, gs://" in done.err) == (2, True), done.err
    assert s3.names() == before


def test_a_store_that_is_not_reached_is_to_be_tried_again(s3: S3, reviews: Path, text_bundle: Path) -> None:
    nowhere = s3.env | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = run_tfbatch("run", f"s3://{s3.bucket}/in", "-m", text_bundle, "-o", f"s3://{s3.bucket}/out", env=nowhere)
    assert (done.code, "cannot be reached" in done.err) == (75, True), done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_at_once_that_waits_for_its_input(number: int, code: int, text_bundle: Path) -> None:
    with never_answer() as store, store.asked_by("s3://silent/in", "-m", text_bundle, "-o", "s3://silent/out") as run:
        run.send_signal(number)
        out, err = run.communicate(timeout=3)
    assert (run.returncode, json.loads(out)["exit_code"]) == (code, code), err
    assert len(err.splitlines()) == 1, err


def test_a_signal_ends_a_run_that_nobody_listens_to(text_bundle: Path) -> None:
    with never_answer() as store, store.asked_by("s3://silent/in", "-m", text_bundle, "-o", "s3://silent/out") as run:
        assert run.stderr
        run.stderr.close()
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=3) == 143


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_a_job_at_once_that_waits_for_its_output(
    number: int, code: int, reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = (reviews, "-m", text_bundle, "-o", "s3://silent/out", "--metrics-file", tmp_path / "run.prom")
    with never_answer() as store, store.asked_by(*words) as run:
        run.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(1)
        run.send_signal(number)
        out, err = run.communicate(timeout=3)
    assert (run.returncode, json.loads(out)["exit_code"]) == (code, code), err
    assert f'tfbatch_exit_code{{run="run"}} {code}' in (tmp_path / "run.prom").read_text()


def test_another_jobs_output_in_a_bucket_is_refused_naming_what_changed(
    s3: S3, reviews: Path, text_bundle: Path
) -> None:
    s3.put("in/reviews.parquet", reviews)
    assert score(s3, text_bundle).code == 0
    before = {name: s3.get(name) for name in s3.names("out")}
    done = score(s3, text_bundle, "--prefix", "a_")
    assert (done.code, "another --prefix" in done.err) == (78, True), done.err
    assert {name: s3.get(name) for name in s3.names("out")} == before
    assert score(s3, text_bundle, "--prefix", "a_", "--overwrite").code == 0
    assert len(s3.parts("out")) == 1


def test_many_objects_are_removed_with_one_request_and_nothing_beside_them(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore
    from tfbatch.outputs.bucket import Bucket

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    names = ["a.parquet", "day=1/b.parquet", "images/part/1.png", "images/part/2.png", "images/particular/1.png", "c"]
    for name in names:
        s3.put(f"out/{name}", b"x")
    requests: list[list[str]] = []
    delete = obstore.delete
    monkeypatch.setattr(obstore, "delete", lambda store, paths: (requests.append(paths), delete(store, paths)))
    bucket = Bucket(f"s3://{s3.bucket}/out")
    bucket.remove("nothing")
    bucket.remove("a.parquet", "day=1/b.parquet", "images/part", "nothing")
    assert s3.names() == ["out/c", "out/images/particular/1.png"]
    assert len(requests) == 2
    for number in range(1001):
        s3.put(f"out/many/{number}", b"x")
    bucket.remove("many")
    assert s3.names() == ["out/c", "out/images/particular/1.png"]
    assert [len(names) for names in requests[2:]] == [1000, 2]


def test_a_store_that_takes_no_lists_of_names_is_asked_one_by_one(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore
    from obstore.exceptions import GenericError, PermissionDeniedError
    from tfbatch.outputs.bucket import Bucket

    def delete(store: object, paths: str | list[str]) -> None:
        if not isinstance(paths, str):
            raise GenericError("no such operation")
        if paths == "kept":
            raise PermissionDeniedError("kept")
        one_by_one(store, paths)

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    one_by_one = obstore.delete
    monkeypatch.setattr(obstore, "delete", delete)
    for name in ("a", "b", "kept"):
        s3.put(f"out/{name}", b"x")
    bucket = Bucket(f"s3://{s3.bucket}/out")
    bucket.remove("a", "b", "nothing")
    assert s3.names() == ["out/kept"]
    with pytest.raises(OSError, match="PermissionDenied"):
        bucket.remove("kept")


def test_credentials_come_from_a_profile_file_too(s3: S3, reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    s3.put("in/reviews.parquet", reviews)
    profile = f"[night]\naws_access_key_id = {KEYS['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = x\n"
    (tmp_path / "credentials").write_text(profile)
    env = {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "night",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": s3.url,
    }  # fmt: skip
    words = ["run", f"s3://{s3.bucket}/in", "-m", text_bundle, "-o", f"s3://{s3.bucket}/out"]
    done = run_tfbatch(*words, env=env)
    assert done.code == 0, done.err


def test_without_its_package_the_message_says_what_to_install(reviews: Path, text_bundle: Path) -> None:
    program = "import sys; sys.modules['obstore'] = None; from tfbatch.cli import main; main()"
    command = [sys.executable, "-c", program, "run", reviews, "-m", text_bundle, "-o", "s3://bucket/out"]
    done = subprocess.run(list(map(str, command)), env=tfbatch_env(), capture_output=True, text=True, check=False)
    assert (done.returncode, "pip install 'tfbatch[cloud]'" in done.stderr) == (78, True), done.stderr


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("in/*.parquet", ["a"]),
        ("in/**/*.parquet", ["a", "c", "b"]),
        ("in/day=*/?.parquet", ["c", "b"]),
        ("in/day=[2-9]/*", ["b"]),
        ("in", ["a", "c", "b"]),
        ("in/a.parquet", ["a"]),
    ],
)
def test_patterns_of_addresses_are_those_of_paths(
    pattern: str, found: list[str], s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    for name in ("in/a.parquet", "in/day=2/b.parquet", "in/day=1/c.parquet", "in/_tmp/d.parquet", "in.parquet"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        if "_tmp" not in name or pattern == "in":
            s3.put(name, file)
        else:
            file.unlink()  # patterns take what they match; folders leave bookkeeping out
    remote = find_sources((f"s3://{s3.bucket}/{pattern}",))
    local = find_sources((f"file://{tmp_path}/{pattern}",))
    assert [Path(source.path).stem for source in remote] == found
    assert [Path(source.path).stem for source in local] == found


def test_an_object_that_was_replaced_is_another_input(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    s3.put("in.parquet", write_reviews(tmp_path / "a.parquet", 20, seed=1))
    (source,) = find_sources((f"s3://{s3.bucket}/in.parquet",))
    before = source.identity()
    assert source.identity() == before
    s3.put("in.parquet", write_reviews(tmp_path / "b.parquet", 20, seed=2))
    assert source.identity() != before


def test_addresses_are_told_from_paths() -> None:
    assert [scheme_of(text) for text in ("s3://a/b", "gs://a", "file:///a", "/a/b", "a b", "c:/x")] == [
        "s3", "gs", None, None, None, None
    ]  # fmt: skip
    assert place_of("file:///tmp/../a") == Path("/a")
    with pytest.raises(errors.UsageError, match="ftp://a"):
        scheme_of("ftp://a")


@pytest.mark.parametrize("moment", ["open", "flock"])
def test_a_spool_that_is_taken_for_one_left_before_it_is_held_is_made_anew(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfbatch.outputs.spools import make_spool, new_spool

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = new_spool("s3://bucket/out")
    module = os if moment == "open" else fcntl
    call, times = getattr(module, moment), iter([True])

    def taken(*arguments: Any) -> Any:
        if next(times, False):
            spool.rmdir()
        return call(*arguments)

    monkeypatch.setattr(module, moment, taken)
    held = make_spool(spool)
    assert os.path.samestat(os.fstat(held), spool.stat())
    os.close(held)


def test_each_process_has_a_spool_of_its_own_and_removes_what_the_dead_have_left(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tfbatch.outputs.bucket import Bucket
    from tfbatch.outputs.spools import new_spool

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    address = f"s3://{s3.bucket}/out"
    left, theirs = new_spool(address), new_spool(address)
    left.mkdir()
    (tmp_path / "else").mkdir()
    theirs.symlink_to(tmp_path / "else")
    first, second = Bucket(address), Bucket(address)
    first.hold()
    assert not left.exists()
    assert theirs.is_symlink()
    s3.put("out/_tfbatch/lock", lease(until=0))  # as where it could not renew its own for long
    second.hold()
    assert first.spool.exists()
    first.release()
    assert second.spool.exists()
    second.release()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "else", theirs])


def test_what_is_large_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from tfbatch.outputs import bucket

    with slow_store(bytes_a_second=100_000) as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(bucket, "SECONDS", 1)
        monkeypatch.setattr(bucket, "SLOWEST", 50_000)
        bucket.Bucket("s3://slow/out")._put("part", bytes(300_000), "create")


def test_nothing_is_put_that_is_held_no_more(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfbatch.outputs.bucket import Bucket

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)

    def refuse() -> None:
        raise errors.TryAgain("another's")

    worker = Bucket(f"s3://{s3.bucket}/out")
    worker.join(tmp_path / "worker-0", refuse)
    (worker.spool / "part").write_bytes(b"rows")
    (worker.spool / "pictures").mkdir()
    (worker.spool / "pictures/1.png").write_bytes(b"picture")
    with pytest.raises(errors.TryAgain):
        worker.publish(worker.spool / "part", "part")
    with pytest.raises(errors.TryAgain):
        worker.publish_folder(worker.spool / "pictures", "images/part")
    assert s3.names() == []


@pytest.mark.parametrize("profile", ["absent", "broken"])
def test_credentials_that_cannot_be_had_are_told_of(
    profile: str, s3: S3, reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[profile broken]\ncredential_process = false\nregion = us-east-1\n")
    env = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": profile, "AWS_ENDPOINT_URL": s3.url}
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", f"s3://{s3.bucket}/out", env=env)
    assert (done.code, "cannot be used: no credentials: " in done.err) == (73, True), done.err


def test_nothing_is_deleted_that_is_held_no_more(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tfbatch.outputs.bucket import Bucket

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    before = {"out/part": b"another run's", "out/images/part/9.png": b"its picture"}
    for name, content in before.items():
        s3.put(name, content)
    answers = iter([None, errors.TryAgain("another's"), errors.TryAgain("another's")])

    def ask() -> None:
        if (error := next(answers)) is not None:
            raise error

    worker = Bucket(f"s3://{s3.bucket}/out")
    worker.join(tmp_path / "worker-0", ask)
    (worker.spool / "part").write_bytes(b"rows")
    (worker.spool / "pictures").mkdir()
    with pytest.raises(errors.TryAgain):
        worker.publish(worker.spool / "part", "part")
    with pytest.raises(errors.TryAgain):
        worker.publish_folder(worker.spool / "pictures", "images/part")
    assert {name: s3.get(name) for name in s3.names()} == before


def test_objects_that_are_deleted_one_by_one_are_asked_for_one_by_one(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from obstore.exceptions import GenericError
    from tfbatch.outputs import bucket

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    for number in range(5):
        s3.put(f"out/images/part/{number}.png", b"another run's")
    delete, answers = bucket.obstore.delete, iter([True, True, True])

    def ask() -> None:
        if not next(answers, False):
            raise errors.TryAgain("another's")

    def one_by_one(store: Any, names: str | list[str]) -> None:
        if isinstance(names, list):
            raise GenericError("no lists")
        delete(store, names)

    worker = bucket.Bucket(f"s3://{s3.bucket}/out")
    worker.join(tmp_path / "worker-0", ask)
    monkeypatch.setattr(bucket.obstore, "delete", one_by_one)
    with pytest.raises(errors.TryAgain):
        worker.remove("images")
    assert len(s3.names()) == 4, "asked for all, for `images`, and for its first picture"


def test_variables_of_connections_count_as_ever(s3: S3, reviews: Path, text_bundle: Path) -> None:
    env = {**KEYS, "AWS_ENDPOINT": s3.url, "AWS_ALLOW_HTTP": "true", "AWS_PROXY_URL": "", "AWS_READ_TIMEOUT": ""}
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", f"s3://{s3.bucket}/out", env=env)
    assert done.code == 0, done.err
