"""Models from files: what is read, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.zoo import tiny
from whyglass import BadInput, Occlusion, Saliency, Unsupported
from whyglass.data.loading import load

X = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def test_plain_state_dict_also_from_data_parallel(tmp_path: Path) -> None:
    state = {f"module.{name}": value + 1 for name, value in tiny.model().state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "weights.pt")
    loaded = load("tests.zoo.tiny:model", tmp_path / "weights.pt")
    assert isinstance(loaded.model, nn.Module)
    for name, value in tiny.model().state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value + 1)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_that_runs_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="run code"):
        load("tests.zoo.tiny:model", tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(BadInput, match="does not fit"):
        load("tests.zoo.tiny:model", tmp_path / "other.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit announces its end
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_files_that_run_code_need_trust(tmp_path: Path) -> None:
    model = tiny.model().eval()
    script, program = tmp_path / "net.ts", tmp_path / "net.pt2"
    torch.jit.trace(model, X).save(str(script))
    torch.export.save(torch.export.export(model, (X,)), program)
    for path in (script, program):
        with pytest.raises(BadInput, match="--trust-model"):
            load(str(path))
        loaded = load(str(path), trust=True)
        torch.testing.assert_close(Saliency()(loaded.model, X).values, Saliency()(model, X).values)


def test_onnx_is_a_black_box(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="extra onnx is not installed")
    model = tiny.model().eval()
    conv, linear = model[0], model[4]
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(linear, nn.Linear)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    tensors = {"cw": conv.weight, "cb": conv.bias, "lw": linear.weight, "lb": linear.bias}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "cw", "cb"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("Gemm", ["f", "lw", "lb"], ["y"], transB=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(t.detach().numpy(), n)
            for n, t in tensors.items()
            if t is not None
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "tiny.onnx")
    loaded = load(str(tmp_path / "tiny.onnx"))
    ours, theirs = (Occlusion(window=8)(m, X, target=1).values for m in (model, loaded.model))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with pytest.raises(Unsupported, match="scores and no gradients"):
        Saliency()(loaded.model, X)


def test_onnx_file_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx is not installed")
    (tmp_path / "bad.onnx").write_text("no graph")
    with pytest.raises(BadInput, match=r"bad\.onnx"):
        load(str(tmp_path / "bad.onnx"))
