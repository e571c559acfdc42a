"""Captions: each word of a trained captioner is explained by the region that it names."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from whyglass import RISE, BadInput, IntegratedGradients
from whyglass.data.caption import Caption

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
START, FIRST = 0, 1  # word 0 begins a caption, 1 to 3 are colours
LEFT, RIGHT = slice(2, 10), slice(14, 22)
ROWS = slice(8, 16)


def drawing(left: Tensor, right: Tensor) -> Tensor:
    """(B, 3, 24, 24): a square on either side, each of one of three colours."""
    images = torch.zeros(len(left), 3, 24, 24)
    images[:, :, ROWS, LEFT] = COLOURS[left][:, :, None, None]
    images[:, :, ROWS, RIGHT] = COLOURS[right][:, :, None, None]
    return images


class Captioner(nn.Module):
    """Reads the image with a convolution and the prefix with a recurrent net; logits of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(1))
        self.embed, self.read = nn.Embedding(4, 8), nn.GRU(8, 16, batch_first=True)
        self.join = nn.Sequential(nn.Linear(8 * 36 + 16, 32), nn.ReLU(), nn.Linear(32, 4))

    def every(self, images: Tensor, prefix: Tensor) -> Tensor:
        states = self.read(self.embed(prefix))[0]
        seen = self.see(images)[:, None].expand(-1, states.shape[1], -1)
        return self.join(torch.cat([seen, states], 2))

    def forward(self, images: Tensor, prefix: Tensor) -> Tensor:
        return self.every(images, prefix)[:, -1]


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    """Trained to say the colour of the left square, then that of the right one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Captioner()
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(200):
            left, right = torch.randint(3, (2, 32))
            prefix = torch.stack([torch.full((32,), START), left + FIRST], 1)
            loss = torch.zeros(())
            for word, (other, said) in enumerate(((RIGHT, left), (LEFT, right))):
                images = drawing(left, right)
                # The square that the word is not about may be there or not.
                images[..., other] *= torch.rand(32, 1, 1, 1)
                images += 0.1 * torch.randn(images.shape)
                logits = model(images, prefix[:, : word + 1])
                loss = loss + nn.functional.cross_entropy(logits, said + FIRST)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert loss < 0.1
    return model.eval()


def test_the_map_of_each_word_lies_on_what_it_names(captioner: Captioner) -> None:
    image = drawing(torch.tensor([2]), torch.tensor([0]))
    model = Caption(captioner, [3, 1], start=[START])
    found = RISE(samples=1000, cells=6)(
        model, image, target=model.target, legend=model.legend(["blue", "red"])
    )
    assert found.targets == [["blue", "red", "sentence"]]
    blue, red, sentence = found.values[0, 0].unbind(-1)
    assert found.score.min() > 0.9
    for word, own, other in ((blue, LEFT, RIGHT), (red, RIGHT, LEFT)):
        top, left = divmod(int(word.argmax()), 24)
        assert ROWS.start - 2 <= top < ROWS.stop + 2
        assert own.start - 2 <= left < own.stop + 2
        inside, across = (word[ROWS, side].mean() for side in (own, other))
        rise = word.max() - word.mean()
        assert inside - word.mean() > rise / 2
        assert inside - across > rise / 2
    torch.testing.assert_close(sentence, (blue + red) / 2)


def test_any_method_explains_a_word(captioner: Captioner) -> None:
    image = drawing(torch.tensor([1]), torch.tensor([2]))
    model = Caption(captioner, [2, 3], start=[START], log=True)
    for word, own, other in ((0, LEFT, RIGHT), (1, RIGHT, LEFT)):
        values = IntegratedGradients()(model, image, target=word).values.sum(1)[0]
        assert values[ROWS, own].sum() > 2 * values[ROWS, other].sum().abs()


@pytest.mark.parametrize("log", [False, True])
def test_words_are_the_captioners_own_probabilities(captioner: Captioner, log: bool) -> None:
    """P[w_k | I, w_1 .. w_{k-1}] one word at a time, in float64."""
    images = drawing(torch.tensor([0, 1]), torch.tensor([2, 2])) + 0.3
    tokens = [1, 3, 2]
    with torch.no_grad():
        stepwise = Caption(captioner, tokens, start=[START], log=log)(images)
        at_once = Caption(captioner.every, tokens, start=[START], log=log, every_position=True)
        torch.testing.assert_close(at_once(images), stepwise)
        for row in range(2):
            prefix, chances = [START], []
            for word in tokens:
                logits = captioner(images[row : row + 1], torch.tensor([prefix]))[0].double()
                chances.append(float(logits[word].exp() / logits.exp().sum()))
                prefix.append(word)
            whole = math.log(math.prod(chances)) if log else sum(chances) / 3
            expected = [*(map(math.log, chances) if log else chances), whole]
            assert stepwise[row].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_captioner_without_a_begin_token_and_with_a_wrapped_output() -> None:
    seen = []

    def captioner(images: Tensor, prefix: Tensor) -> dict[str, Tensor]:
        seen.append(prefix.tolist())
        return {"logits": torch.zeros(len(images), 5)}

    model = Caption(captioner, [4, 2], output=lambda found: found["logits"])
    assert model(torch.ones(2, 3)).tolist() == [pytest.approx([0.2] * 3)] * 2
    assert seen == [[[], []], [[4], [4]]]


def test_training_mode_inside_is_refused() -> None:
    dropped = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 4))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = dropped

        def forward(self, images: Tensor, prefix: Tensor) -> Tensor:
            return self.body(images)

    with pytest.raises(BadInput, match=r"'captioner.body.1' \(Dropout\) is in training mode"):
        RISE(samples=4, cells=2)(Caption(Model(), [1]), torch.ones(1, 3, 2, 2), target=0)


def returns(*shape: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda images, prefix: torch.zeros(*shape)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Caption(returns(1, 4), []), "tokens is empty"),
        (lambda: Caption(returns(1, 4), [1, True]), "tokens must hold .* not True"),
        (lambda: Caption(returns(1, 4), [1], start=["<s>"]), "start must hold .* not '<s>'"),
        (lambda: Caption(returns(1, 4), [1], every_position=True), "start is empty"),
        (lambda: Caption(returns(1, 4), [1, 4])(torch.ones(1, 2)), "holds 4 .* has 4 words"),
        (lambda: Caption(returns(1, 2, 4), [1])(torch.ones(1, 2)), r"\(B, V\) .* not \(1, 2, 4\)"),
        (lambda: Caption(returns(3, 4), [1])(torch.ones(1, 2)), r"for 1 images, not \(3, 4\)"),
        (lambda: Caption(lambda i, p: None, [1])(torch.ones(1, 2)), "not NoneType"),
        (
            lambda: Caption(returns(1, 3, 4), [1, 2], start=[0], every_position=True)(
                torch.ones(1, 2)
            ),
            "3 positions for a prefix of 2 words",
        ),
        (lambda: Caption(returns(1, 4), [1]).legend(["a", "b"]), "2 entries and the caption 1"),
    ],
)
def test_what_makes_no_sense(make: Callable[[], object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        make()
