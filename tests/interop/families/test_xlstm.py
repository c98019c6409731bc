from .support import VOCABULARY, Family

SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "num_hidden_layers": 2, "num_heads": 2, "gate_soft_cap": 2.0,
    "output_logit_soft_cap": 3.0, "ffn_round_up_to_multiple_of": 8, "autocast_kernel_dtype": "float32",
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


class TestXlstm(Family):
    CASES = {
        "xlstm": ("xLSTMConfig", SMALL),
    }
