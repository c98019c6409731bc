"""Runnel's models under the LM Evaluation Harness: importing this registers the model "runnel".

    python -m runnel.interop.lm_eval --model runnel --model_args run=runs/demo --tasks lambada_openai

The second line is lm-eval's own command, which knows of the model because this module was imported first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lm_eval.models  # noqa: F401  (its own models: the registry looks for them only while it is empty)
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

import runnel
from runnel import codecs
from runnel.prefill import CHUNK


@register_model("runnel")
class RunnelLM(TemplateLM):
    """run: the folder of a model with its codec, as `runnel train` and `runnel import` make it.

    begin: the token that stands before texts without a context; what the tokenizer puts there, else its end or 0, when
    left out. batch_size: texts read together. The likelihoods do not depend on it but by rounding.
    """

    def __init__(self, run: str, begin: int | None = None, batch_size: int | str = 8, **options: Any) -> None:
        super().__init__()
        self.model, self.codec = runnel.load(run).eval(), codecs.load(run)
        beginnings = [*self.codec.opening, *sorted(self.codec.ends), 0]
        self.begin = beginnings[0] if begin is None else begin
        self.batch_size = 8 if batch_size == "auto" else int(batch_size)

    @property
    def eot_token_id(self) -> int:
        return self.begin

    @property
    def tokenizer_name(self) -> str:
        return self.codec.fingerprint

    def tok_encode(self, string: str, **options: Any) -> list[int]:
        return self.codec.encode(string)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **options: Any) -> list[tuple[float, bool]]:
        """For each ((context, continuation), its tokens, its tokens): how likely, and whether it is the greedy text."""
        texts = [[*context, *continuation] for _, context, continuation in requests]
        found: list[tuple[float, bool]] = [(0.0, False)] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(texts), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            scores = runnel.score(self.model, [texts[i] for i in rows], top_logprobs=1, prefill_chunk=CHUNK)
            for i, logprobs, tops in zip(rows, scores.logprobs, scores.top_logprobs, strict=True):
                asked = requests[i][2]
                likeliest = [next(iter(top)) for top in tops[-len(asked) :]]
                found[i] = (sum(logprobs[-len(asked) :]), likeliest == list(asked))
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], **options: Any) -> list[float]:
        """How likely whole texts are: a state has no longest text, so they are never cut into windows."""
        texts = [self.codec.encode(request.args[0]) for request in requests]
        asked = [((None, None), [self.begin], text) for text in texts]
        return [likelihood for likelihood, _ in self._loglikelihood_tokens(asked)]

    def generate_until(self, requests: Sequence[Any], **options: Any) -> list[str]:
        return [self._written(*request.args) for request in requests]

    def _written(self, context: str, asked: dict[str, Any]) -> str:
        until = asked.get("until") or []
        stop = [until] if isinstance(until, str) else [text for text in until if text]
        temperature = float(asked.get("temperature") or 0.0) if asked.get("do_sample") else 0.0
        made = runnel.generate(
            self.model,
            [self.codec.encode(context) or [self.begin]],
            max_new_tokens=int(asked.get("max_gen_toks", 256)),
            decoder="sample" if temperature else "greedy",
            temperature=temperature or 1.0,
            eos=self.codec.ends,
            stop=stop,
            codec=self.codec,
        )
        text = self.codec.decode(made.tokens[0])
        for mark in stop:
            text = text.split(mark)[0]
        return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
