"""The command line: what it prints, writes and returns."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.zoo import tiny
from whyglass import METHODS, Explanation
from whyglass.cli import explain as command
from whyglass.cli.job import DEFAULT_METHODS
from whyglass.cli.main import main

TINY = ["-m", "tests.zoo.tiny:model", "--size", "32", "--crop", "32"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["whyglass", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, captured.out, captured.err

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in ("a.png", "b <i>&.png"):
        pixels = draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_brief_names_the_prediction_and_every_default_method(run: Run, photos: Path) -> None:
    code, out, _ = run("explain", photos / "a.png", *TINY)
    assert code == 0
    assert "a.png" in out
    assert "%" in out
    assert all(name in out for name in DEFAULT_METHODS)


def test_json_holds_what_the_library_computes(run: Run, photos: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "explain", photos, *TINY, "-M", "saliency", "-M", "integrated-gradients", "--set",
        "integrated-gradients.steps=16", "-t", "2", "--json", "--save", tmp_path / "out",
    )  # fmt: skip
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["schema"] == 1
    assert len(result["photos"]) == 2
    first = result["photos"][0]["explanations"]
    assert [entry["method"] for entry in first] == ["saliency", "integrated-gradients"]
    assert first[1]["settings"]["steps"] == 16
    assert first[1]["gradients"] <= 16
    saved = Explanation.load(first[0]["saved"])
    inputs = saved.inputs
    assert isinstance(inputs, torch.Tensor)
    assert isinstance(saved.values, torch.Tensor)
    x = inputs.clone().requires_grad_()
    tiny.model()(x)[0, 2].backward()
    assert x.grad is not None
    torch.testing.assert_close(saved.values, x.grad.abs())


def test_methods_of_coalitions_play_with_windows(run: Run, photos: Path) -> None:
    names = ("exact-shapley", "permutation-shapley", "kernel-shap", "lime", "owen", "qii")
    code, out, err = run(
        "explain", photos / "a.png", *TINY, *(part for name in names for part in ("-M", name)),
        "--set", "players=2", "--set", "budget=60", "--background", photos, "--json",
    )  # fmt: skip
    assert code == 0, err
    made = {entry["method"]: entry for entry in json.loads(out)["photos"][0]["explanations"]}
    assert list(made) == list(names)
    assert made["lime"]["settings"]["players"] == 2
    # Two photographs are the background of all: the mean of their scores is what is left of nothing.
    assert made["exact-shapley"]["evaluations"] == 1 + 2 + 14 * 2
    assert made["exact-shapley"]["baseline_score"] == pytest.approx(
        made["kernel-shap"]["baseline_score"], abs=1e-5
    )


def test_methods_of_coalitions_need_no_setting(run: Run, photos: Path) -> None:
    """Windows by default, superpixels by name, filled from around them."""
    settled = {}
    for players in ([], ["--players", "superpixels"]):
        code, out, err = run(
            "explain", photos / "a.png", *TINY, "-M", "lime", *players,
            "--baseline", "inpaint", "--set", "budget=140", "--json",
        )  # fmt: skip
        assert code == 0, err
        entry = json.loads(out)["photos"][0]["explanations"][0]
        settled[len(players)] = entry["settings"]["players"]
    assert settled[0] == 8
    assert settled[2] == "superpixels"
    for options, words in (
        (["--players", "0"], "--players '0'"),
        (["--baseline", "inpaint", "-M", "occlusion"], "not occlusion"),
    ):
        code, _, err = run("explain", photos / "a.png", *TINY, *options)
        assert code == 2
        assert words in err


def test_a_photograph_that_fails_leaves_no_empty_report(run: Run, photos: Path) -> None:
    page = photos / "page.html"
    code, out, err = run(
        "explain", photos / "a.png", *TINY, "-M", "lime", "--set", "budget=5", "--report", page
    )
    assert code == 3
    assert "budget 5" in err
    assert "report" not in out
    assert not page.exists()


def test_examples_in_the_help_have_a_line_each(run: Run) -> None:
    code, out, _ = run("explain", "--help")
    assert code == 0
    assert "\n  whyglass explain cat.jpg --report cat.html\n" in out


def test_report_is_one_safe_page(run: Run, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "deep" / "page.html"
    code, _, _ = run("explain", photos, *TINY, "--report", page, "--quiet")
    text = page.read_text()
    assert code == 0
    assert page.stat().st_size < 5_000_000
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"(?!data:)", text), "nothing may come from outside"
    assert "b &lt;i&gt;&amp;.png" in text
    assert "<i>&" not in text
    assert all(re.search(r'alt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", text))


def test_report_leaves_out_what_would_not_fit(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whyglass.views.report.BUDGET", 100_000)
    page = tmp_path / "page.html"
    run("explain", photos, *TINY, "-M", "grad-cam", "--report", page, "-q")
    assert "1 more input is left out" in page.read_text()


def test_methods_by_other_names(run: Run, photos: Path) -> None:
    """An alias, a preset of LRP's rule; `--set` knows both names of a method."""
    code, out, err = run(
        "explain", photos / "a.png", *TINY, "-M", "ig", "-M", "EpsilonPlus", "-M", "saliency",
        "--set", "integrated-gradients.steps=8", "--set", "ig.rule=midpoint",
        "--set", "lrp.bias=share", "--json",
    )  # fmt: skip
    assert code in (0, 4), err
    first, second, _ = json.loads(out)["photos"][0]["explanations"]
    assert first["method"] == "integrated-gradients"
    assert (first["settings"]["steps"], first["settings"]["rule"]) == (8, "midpoint")
    assert second["method"] == "lrp"
    assert (second["settings"]["rule"], second["settings"]["bias"]) == ("epsilon-plus", "share")


def test_methods_table_is_the_catalogue(run: Run) -> None:
    code, out, _ = run("methods")
    assert code == 0
    assert all(name in out for name in METHODS)
    code, out, _ = run("methods", "--json")
    table = json.loads(out)
    assert table["schema"] == 1
    assert [row["name"] for row in table["methods"]] == list(METHODS)


@pytest.mark.parametrize(
    ("arguments", "expected", "words"),
    [
        (["explain"], 2, "at least one photograph"),
        (["explain", "{a}", "--nope"], 2, "--nope"),
        (["explain", "{a}", "--set", "steps"], 2, "KEY=VALUE"),
        (["explain", "{a}", "-M", "saliency", "--set", "steps=4"], 2, "'steps'"),
        (["explain", "{a}", "--against", "1"], 2, "--target"),
        (["explain", "{a}", "-M", "expected-gradients"], 2, "--background"),
        (["explain", "{a}", "--mean", "x"], 2, "numbers"),
        (["explain", "{a}", "-M", "salincy"], 3, "saliency"),
        (["explain", "{a}", "-t", "9"], 3, "out of range"),
        (["explain", "{a}", "-t", "cat"], 3, "no names are known"),
        (["explain", "{a}", "--baseline", "mauve"], 3, "mauve"),
        (["explain", "{a}", "--at", "conv"], 3, "no layer 'conv'"),
        (["explain", "missing.png"], 3, "no file missing.png"),
        (["explain", "{text}"], 3, "cannot be read as an image"),
        (["explain", "{empty}"], 3, "holds no photographs"),
        (["explain", "{a}", "--batch-size", "0"], 3, "batch_size"),
        (["explain", "{a}", "--set", "steps=0"], 3, "steps"),
        (["explain", "{a}", "--crop", "64"], 3, "does not fit"),
        (["explain", "{a}", "-m", "nowhere"], 3, "package.module:factory"),
        (["explain", "{a}", "-m", "tests.zoo.tiny:nope"], 3, "nope"),
        (["explain", "{a}", "-m", "tests.zoo.tiny:not_a_model"], 3, "int"),
        (["explain", "{a}", "-m", "gone.onnx"], 3, "no file gone.onnx"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_its_code_and_a_sentence(
    run: Run, photos: Path, tmp_path: Path, arguments: list[str], expected: int, words: str
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    places = {"a": photos / "a.png", "text": tmp_path / "text.png", "empty": tmp_path / "empty"}
    full = [argument.format(**places) for argument in arguments]
    if full[0] == "explain" and "-m" not in full:
        full += TINY if "--crop" not in full else TINY[:4]
    code, _, err = run(*full)
    assert code == expected, err
    assert words in err
    assert "Traceback" not in err


def test_a_bad_photo_among_good_ones_is_code_5(run: Run, photos: Path) -> None:
    (photos / "c.png").write_text("no picture")
    code, out, err = run("explain", photos, *TINY, "-M", "saliency", "--json")
    assert code == 5
    assert "c.png" in err
    errors = ["error" in record for record in json.loads(out)["photos"]]
    assert errors == [False, False, True]


def test_a_failed_check_is_code_4(run: Run, photos: Path) -> None:
    coarse = ["--set", "rule=endpoints", "--set", "steps=2", "--set", "tol=1e-9"]
    code, out, _ = run("explain", photos / "a.png", *TINY, "-M", "integrated-gradients", *coarse)
    assert code == 4
    assert "FAIL" in out


def test_an_internal_error_has_no_traceback_unless_asked(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(command, "read", broken)
    code, _, err = run("explain", photos / "a.png", *TINY)
    assert code == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    monkeypatch.setattr(
        "sys.argv", ["whyglass", "explain", str(photos / "a.png"), *TINY, "--debug"]
    )
    with pytest.raises(ZeroDivisionError):
        main()


def test_weights_fill_a_factory_model(run: Run, photos: Path, tmp_path: Path) -> None:
    state = {name: torch.zeros_like(value) for name, value in tiny.model().state_dict().items()}
    save_file(state, tmp_path / "zero.safetensors")
    common = ["explain", photos / "a.png", *TINY, "-M", "saliency", "--json", "--weights"]
    code, out, _ = run(*common, tmp_path / "zero.safetensors")
    assert code == 0
    assert json.loads(out)["photos"][0]["explanations"][0]["score"] == 0
    code, _, err = run(*common, photos / "a.png")
    assert code == 3
    assert "a.png" in err


def test_demo_explains_the_cat(run: Run) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra demo is not installed")
    pytest.importorskip("skimage", reason="extra demo is not installed")
    code, out, _ = run("explain", "--demo", "-M", "grad-cam", "--json")
    labels = [p["label"] for p in json.loads(out)["photos"][0]["prediction"]]
    assert code == 0
    assert {"tabby", "tiger cat", "Egyptian cat"} >= set(labels[:3])
