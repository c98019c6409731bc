import pytest

from runnel.interop.families import nemotron_h

from .support import DECODER, Family

SMALL = {
    **{field: value for field, value in DECODER.items() if field != "num_hidden_layers"}, "head_dim": 8,
    "layers_block_type": ["mamba", "mlp", "attention", "mamba", "mlp"], "mamba_num_heads": 8, "mamba_head_dim": 4,
    "ssm_state_size": 8, "n_groups": 2,
}  # fmt: skip


class TestNemotronH(Family):
    CASES = {
        "nemotron_h": ("NemotronHConfig", SMALL),
        "nemotron_h_biases": ("NemotronHConfig", {**SMALL, "use_bias": True, "mlp_bias": True}),
        "nemotron_h_experts": (
            "NemotronHConfig",
            {
                **SMALL, "layers_block_type": ["mamba", "moe", "attention", "mlp", "mamba", "moe"],
                "n_routed_experts": 6, "num_experts_per_tok": 2, "n_group": 3, "topk_group": 2,
                "moe_intermediate_size": 16, "moe_shared_expert_intermediate_size": 24, "routed_scaling_factor": 1.5,
            },
        ),
    }  # fmt: skip
    FALLBACKS = ("nemotron_h_experts",)


@pytest.mark.parametrize(
    ("letters", "message"),
    [("M-X", "with layers of 'X' is not supported"), ("-M", "must follow a mixer; layer 0"), ("M--", "layer 2")],
)
def test_what_is_refused(letters, message):
    with pytest.raises(ValueError, match=message):
        nemotron_h._layers({"layers_block_type": None, "hybrid_override_pattern": letters})
