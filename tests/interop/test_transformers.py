"""Runnel's models under transformers: what its own loops make of them is what Runnel's make."""

import peft
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models

import runnel
from runnel import catalog
from runnel.decoders import beam
from runnel.frame import Frame
from runnel.interop.transformers import RunnelCache, RunnelConfig, RunnelForCausalLM

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
PATTERNS = ("mamba", "(mamba2, attention(window=4))", "(gated_deltanet, slstm)", "rwkv7", "zamba2 > gla")
PROMPT = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
QUIET = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "pad_token_id": 0}


def wrapped(pattern="(mamba2, attention)", **options):
    model = runnel.build(pattern, vocab_size=13, d_model=16, **options)
    with torch.no_grad():
        model.head.logits.weight.mul_(20)
    return RunnelForCausalLM.of(model).eval()


def greedy(model, prompt=PROMPT):
    return runnel.generate(model.model, prompt.tolist(), max_new_tokens=12, decoder="greedy").tokens


@pytest.mark.parametrize("pattern", PATTERNS)
def test_greedy_beams_and_padding(pattern):
    model = wrapped(pattern)
    assert model.generate(PROMPT, **QUIET)[0, 8:].tolist() == greedy(model)[0]
    beams = model.generate(PROMPT, num_beams=3, length_penalty=1.0, **QUIET)[0, 8:].tolist()
    own = runnel.generate(model.model, PROMPT.tolist(), max_new_tokens=12, decoder=beam.Config(width=3))
    assert beams == own.tokens[0]
    mask = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [1] * 8])
    rows = torch.stack([torch.cat([torch.zeros(3, dtype=torch.long), PROMPT[0, 3:]]), PROMPT[0]])
    text = model.generate(rows, attention_mask=mask, **QUIET)[:, 8:].tolist()
    assert text == [greedy(model, PROMPT[:, 3:])[0], greedy(model)[0]]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_assisted_generation_goes_back_in_recurrent_layers(pattern):
    model = wrapped(pattern)
    expected = greedy(model)[0]
    assert model.generate(PROMPT, prompt_lookup_num_tokens=3, **QUIET)[0, 8:].tolist() == expected
    assistant = wrapped("mingru", seed=5)
    assert model.generate(PROMPT, assistant_model=assistant, **QUIET)[0, 8:].tolist() == expected


def test_a_cache_goes_back_as_far_as_it_was_told_to():
    model, cache = wrapped(), RunnelCache()
    with torch.no_grad():
        model(PROMPT[:, :3], past_key_values=cache)
        cache.activate_past_recording()
        for token in PROMPT[0, 3:]:
            model(token.view(1, 1), past_key_values=cache)
        cache.crop(-4)
        assert cache.get_seq_length() == 4
        found = model(PROMPT[:, 4:6], past_key_values=cache).logits
        torch.testing.assert_close(found, model(PROMPT[:, :6]).logits[:, 4:])
    with pytest.raises(ValueError, match="were read before recording began"):
        cache.crop(-3)


def test_files_are_those_of_transformers(tmp_path):
    for frame in (Frame(), Frame(tied=True)):
        model = wrapped(frame=frame)
        model.save_pretrained(tmp_path)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(loaded) is RunnelForCausalLM
        assert loaded.model.fingerprint() == model.model.fingerprint()
        fresh = transformers.AutoModelForCausalLM.from_config(model.config)
        assert bool((fresh.model.norm.weight == 1).all())  # as its page initialises it


def letters():
    """A tokenizer of thirteen letters, as transformers keeps one."""
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate("_abcdefghijkl")}, []))
    made.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="_", padding_side="left")


def test_pipelines(tmp_path):
    """Text by a model that is here and by its folder, one prompt at a time and ragged ones together."""
    model, codec = wrapped(), letters()
    model.save_pretrained(tmp_path)
    codec.save_pretrained(tmp_path)
    prompts = ["dbeb", "fjcg", "abcabcabc", "a"]
    texts = [greedy(model, torch.tensor([codec(prompt).input_ids]))[0] for prompt in prompts]
    expected = [codec.decode(text, skip_special_tokens=True) for text in texts]
    for options in ({"model": model, "tokenizer": codec}, {"model": str(tmp_path)}):
        pipe = transformers.pipeline("text-generation", device="cpu", **options)
        for size in (1, 4):
            found = pipe(prompts, batch_size=size, return_full_text=False, **QUIET)
            assert [row[0]["generated_text"] for row in found] == expected


def test_only_tokens():
    with pytest.raises(ValueError, match="a model of values cannot be"):
        RunnelConfig(runnel.build("mamba", value_dim=2, d_model=8).config.to_dict())


class Cycle(torch.utils.data.Dataset):
    """Texts that count."""

    def __len__(self):
        return 32

    def __getitem__(self, index):
        text = (torch.arange(12) + index) % 13
        return {"input_ids": text, "labels": text}


def trained(model, folder, **options):
    asked = transformers.TrainingArguments(
        str(folder), max_steps=30, per_device_train_batch_size=8, learning_rate=3e-2, report_to=[], seed=0,
        logging_strategy="no", save_strategy="no", use_cpu=True, disable_tqdm=True, **options,
    )  # fmt: skip
    trainer = transformers.Trainer(model, asked, train_dataset=Cycle())
    before = trainer.evaluate(Cycle())["eval_loss"]
    trainer.train()
    return before, trainer.evaluate(Cycle())["eval_loss"]


def test_trainer(tmp_path):
    before, after = trained(wrapped().train(), tmp_path)
    assert after < 0.5 * before


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # between peft and transformers
def test_adapters_on_the_projections_of_any_mixer(tmp_path):
    model = wrapped("(gla, mamba)")
    base = {name: p.clone() for name, p in model.named_parameters()}
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["qkv", "input", "out", "logits"]))
    before, after = trained(adapted, tmp_path)
    assert after < 0.8 * before
    kept = {name.replace("base_layer.", ""): p for name, p in model.named_parameters() if "lora" not in name}
    assert all(torch.equal(base[name], kept[name]) for name in base)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_adapters_are_heard_in_every_mixer():
    """What a model with adapters computes is what the one computes that they are merged into."""
    for name in catalog.names("mixers"):
        model = RunnelForCausalLM.of(runnel.build(name, vocab_size=13, d_model=16, n_layers=2).double()).eval()
        projections = [path for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        asked = peft.LoraConfig(r=2, target_modules=projections, init_lora_weights=False)
        with torch.no_grad():
            plain = model(PROMPT).logits
            adapted = peft.get_peft_model(model, asked).double().eval()
            found, merged = adapted(PROMPT).logits, adapted.merge_and_unload()(PROMPT).logits
        assert (found - plain).abs().max() > 1e-3
        torch.testing.assert_close(found, merged, rtol=0, atol=1e-9, msg=name)
