"""Runnel's models as models of transformers: `import runnel.interop.transformers` registers them.

    model = RunnelForCausalLM.of(runnel.load("runs/demo"))
    model.generate(ids)                                    # also beams, sampling, assisted generation
    model.save_pretrained("out");  AutoModelForCausalLM.from_pretrained("out")

So `generate`, `Trainer`, pipelines and PEFT's adapters work on any pattern. The cache is Runnel's state. Going back in
it is what it is elsewhere in Runnel: the states before the latest calls were kept, and what is still wanted of those
calls is read again together with the next tokens. So it holds for recurrent layers too.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.generation.utils import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from runnel.lineage import Lineage
from runnel.model import Model, ModelConfig, further_names
from runnel.state import State


class RunnelConfig(transformers.PreTrainedConfig):
    """runnel: the fields of a `ModelConfig`."""

    model_type = "runnel"

    def __init__(self, runnel: dict[str, Any] | None = None, **options: Any) -> None:
        self.runnel = runnel
        if runnel is not None:
            config = ModelConfig(**runnel)
            if config.vocab_size is None:
                raise ValueError("transformers generates tokens: a model of values cannot be one of its models")
            self.vocab_size, self.hidden_size = config.vocab_size, config.d_model
            options.setdefault("tie_word_embeddings", config.frame.tied)
        super().__init__(**options)


class RunnelCache(Cache):
    """A state, and where it can go back to.

    unread: tokens that belong to the text and are not in the state: they are read with the next ones.
    past: what stood before each of the latest calls (state, tokens of the call), as long as going back is asked for.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.state: State | None = None
        self.unread: Tensor | None = None
        self.past: list[tuple[State | None, Tensor]] = []
        self.columns, self.recording = 0, False

    def begin(self, tokens: Tensor) -> Tensor:
        """The tokens of a call, those that are still unread first."""
        return tokens if self.unread is None else torch.cat([self.unread, tokens], dim=1)

    def end(self, state: State, tokens: Tensor, fresh: int) -> None:
        """Take in the state after a call. fresh: how many of its tokens were new."""
        if self.recording:
            self.past.append((self.state, tokens))
        self.state, self.unread = state, None
        self.columns += fresh

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.columns

    def activate_past_recording(self) -> None:
        self.recording = True

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last -tokens_to_remove tokens, which must have come since recording began."""
        forgotten = -tokens_to_remove
        self.columns -= forgotten
        if forgotten and self.unread is not None:
            kept = max(0, self.unread.shape[1] - forgotten)
            forgotten -= self.unread.shape[1] - kept
            self.unread = self.unread[:, :kept] if kept else None
        while forgotten:
            if not self.past:
                raise ValueError(f"cannot go back {forgotten} more tokens: they were read before recording began")
            self.state, tokens = self.past.pop()
            kept = max(0, tokens.shape[1] - forgotten)
            forgotten -= tokens.shape[1] - kept
            self.unread = tokens[:, :kept] if kept else None
        self.past.clear()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.state = None if self.state is None else self.state.fork(indices)
        self.unread = None if self.unread is None else self.unread[indices]
        self.past = [(None if state is None else state.fork(indices), tokens[indices]) for state, tokens in self.past]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            self.batch_select_indices(torch.arange(self.state.batch_size).repeat_interleave(repeats))

    def reset(self) -> None:
        self.state, self.unread, self.columns = None, None, 0
        self.past.clear()

    @property
    def is_croppable(self) -> bool:
        return True


class RunnelForCausalLM(transformers.PreTrainedModel, GenerationMixin):
    """A model of tokens with the surface of transformers. `model` is the Runnel model itself."""

    config_class = RunnelConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"

    def __init__(self, config: RunnelConfig) -> None:
        super().__init__(config)
        self.model = Model(ModelConfig(**(config.runnel or {})))
        further = further_names(self.model).items()  # a tied head, and what layers share
        self._tied_weights_keys = {f"model.{name}": f"model.{first}" for name, first in further}
        self.post_init()

    @classmethod
    def of(cls, model: Model) -> RunnelForCausalLM:
        """A Runnel model with this surface; the weights are shared."""
        with torch.device("meta"):
            made = cls(RunnelConfig(model.config.to_dict()))
        made.model = model
        return made

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        return dict(self._tied_weights_keys)

    def _init_weights(self, module: nn.Module) -> None:
        """A page makes its own initial weights."""

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed

    def get_output_embeddings(self) -> nn.Module | None:
        return getattr(self.model.head, "logits", None)

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *sizes: Any
    ) -> None:
        if generation_config.use_cache is not False and model_kwargs.get("past_key_values") is None:
            model_kwargs["past_key_values"] = RunnelCache()
            if generation_config.is_assistant:
                model_kwargs["past_key_values"].activate_past_recording()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: RunnelCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **options: Any,
    ) -> CausalLMOutputWithPast:
        """attention_mask: (B, columns so far), zero at padding. labels: as input_ids, -100 where nothing is predicted.

        logits_to_keep: so many of the last columns, all when 0; or which columns.
        """
        if past_key_values is None and use_cache:
            past_key_values = RunnelCache()
        tokens, state = input_ids, None
        if past_key_values is not None:
            tokens, state = past_key_values.begin(input_ids), past_key_values.state
        tokens, lineage = _lineage(tokens, attention_mask)
        read = self.model.read(tokens, state, lineage)
        if past_key_values is not None:
            past_key_values.end(read.state, tokens, input_ids.shape[1])
        logits = read.logits[:, -input_ids.shape[1] :]
        logits = logits[:, slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep]
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **options)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)


def _lineage(tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Lineage | None]:
    """Tokens without what padding held, and which columns are padding."""
    if mask is None:
        return tokens, None
    valid = mask[:, -tokens.shape[1] :].bool()
    if bool(valid.all()):
        return tokens, None
    return torch.where(valid, tokens, 0), Lineage.padded(valid)


transformers.AutoConfig.register("runnel", RunnelConfig, exist_ok=True)
transformers.AutoModelForCausalLM.register(RunnelConfig, RunnelForCausalLM, exist_ok=True)
