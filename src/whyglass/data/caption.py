"""Captions: a model whose outputs are the words of one caption, for any method to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whyglass.core.errors import BadInput
from whyglass.core.legend import Legend
from whyglass.core.target import Several


class Caption(nn.Module):
    r"""How probable each word of a caption is, given the image and the words before.

    .. math:: S_k = P[w_k \mid I, w_1, \dots, w_{k-1}]

    A call returns (B, K + 1): a column a word, and last the sentence, which is the mean of the K
    words; with `log` the logarithms, and their sum, the log-likelihood of the sentence. Every row of
    a batch is asked about the same caption. `target` explains all columns at once; a number explains
    one word. Source: Petsiuk, Das & Saenko (2018), explanations of captions.

    Args:
        captioner: `(images (B, ...), prefix (B, k)) -> logits (B, V)` of the next word, k from the
            length of `start` on; or, with `every_position`, logits (B, k, V) after each word of the
            prefix, so that one call serves all words.
        tokens: the words of the caption, as the captioner numbers them.
        start: what the captioner's prefixes begin with.
        every_position: what it returns, see above.
        log: logarithms of the probabilities.
        output: picks the logits out of what the captioner returns.

    >>> import torch, whyglass
    >>> from whyglass.data.caption import Caption
    >>> def captioner(images, prefix):  # word 1 says how bright the left is, word 2 the right
    ...     side = images[:, 0].chunk(2, 2)[prefix.shape[1] - 1].mean((1, 2))
    ...     return torch.stack([torch.zeros_like(side), 4 * side - 2], 1)
    >>> model = Caption(captioner, [1, 1], start=[0])
    >>> model(torch.ones(1, 1, 8, 8)).round(decimals=2)
    tensor([[0.8800, 0.8800, 0.8800]])
    >>> why = whyglass.RISE(cells=2)(model, torch.ones(1, 1, 8, 8), target=model.target)
    >>> left, right, sentence = why.values[0, 0].unbind(-1)
    >>> bool(left[4, 0] > left[4, 7]), bool(right[4, 0] < right[4, 7])
    (True, True)
    """

    def __init__(
        self,
        captioner: Callable[..., Any],
        tokens: Sequence[int],
        *,
        start: Sequence[int] = (),
        every_position: bool = False,
        log: bool = False,
        output: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not len(tokens):
            raise BadInput("tokens is empty: a caption has one word or more")
        for name, words in (("tokens", tokens), ("start", start)):
            for word in words:
                if isinstance(word, bool) or not isinstance(word, int) or word < 0:  # pyright: ignore[reportUnnecessaryIsInstance]  users pass any sequence
                    raise BadInput(f"{name} must hold the numbers of words, not {word!r}")
        if every_position and not len(start):
            raise BadInput(
                "start is empty: logits at every position of a prefix leave the first word without "
                "any; give the captioner's begin token, start=[...]"
            )
        self.captioner, self.output = captioner, output
        self.tokens, self.start = tuple(tokens), tuple(start)
        self.every_position, self.log = every_position, log

    @property
    def target(self) -> Several:
        """Every word, and the sentence last."""
        return Several(*range(len(self.tokens) + 1))

    def legend(self, words: Sequence[str], **more: Any) -> Legend:
        """A legend that names the targets: the caption's words as text, and the sentence."""
        if len(words) != len(self.tokens):
            raise BadInput(f"words has {len(words)} entries and the caption {len(self.tokens)}")
        return Legend(class_names=[*words, "sentence"], **more)

    def forward(self, images: Tensor) -> Tensor:
        """(B, K + 1) probabilities, or their logarithms."""
        words = [*self.start, *self.tokens]
        first = len(self.start)
        if self.every_position:
            logits = self._logits(images, words[:-1], 3)
            if logits.shape[1] != len(words) - 1:
                raise BadInput(
                    f"the captioner returned logits at {logits.shape[1]} positions for a prefix of "
                    f"{len(words) - 1} words: every_position needs one each"
                )
            parts = list(logits[:, first - 1 :].unbind(1))
        else:
            parts = [self._logits(images, words[:k], 2) for k in range(first, len(words))]
        probabilities = torch.stack(
            [
                self._word_probability(part, word).to(parts[0].dtype)
                for part, word in zip(parts, self.tokens, strict=True)
            ],
            1,
        )
        whole = (
            probabilities.sum(1, keepdim=True) if self.log else probabilities.mean(1, keepdim=True)
        )
        return torch.cat([probabilities, whole], 1)

    def _logits(self, images: Tensor, prefix: list[int], axes: int) -> Tensor:
        words = torch.tensor(prefix, dtype=torch.long, device=images.device)
        logits = self.captioner(images, words.expand(len(images), -1))
        if self.output is not None:
            logits = self.output(logits)
        if not isinstance(logits, Tensor) or logits.dim() != axes or len(logits) != len(images):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            form = "(B, V)" if axes == 2 else "(B, k, V)"
            raise BadInput(
                f"the captioner must return logits {form} for {len(images)} images, not {got}: pick "
                "them with output=, or set every_position= as it is"
            )
        return logits

    def _word_probability(self, logits: Tensor, word: int) -> Tensor:
        if word >= logits.shape[1]:
            raise BadInput(
                f"tokens holds {word} and the captioner's vocabulary has {logits.shape[1]} words"
            )
        probabilities = logits.log_softmax(1) if self.log else logits.softmax(1)
        return probabilities[:, word]
