"""The model families that the end-to-end tests run, at a small size and at hidden 512 x sequence 512. Weights are random, data too."""

import inspect

import torch
import transformers as hf


def _ids(vocab, batch, seq, low=3):
    return torch.randint(low, vocab, (batch, seq), generator=torch.Generator().manual_seed(7))


def _causal(config, batch, seq, cls=hf.AutoModelForCausalLM):
    torch.manual_seed(0)
    model = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
    ids = _ids(config.vocab_size, batch, seq)
    return model.train(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _dense(kind, big, **extra):
    size = dict(hidden_size=512, intermediate_size=1024, num_attention_heads=8, num_key_value_heads=2) if big else dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2)
    return kind(**{"vocab_size": 320, "num_hidden_layers": 2, "max_position_embeddings": 1024, "attention_dropout": 0.0, **size, **extra})


def llama(batch, seq, big=False):
    return _causal(_dense(hf.LlamaConfig, big), batch, seq)


def llama_tied(batch, seq, big=False):
    return _causal(_dense(hf.LlamaConfig, big, tie_word_embeddings=True), batch, seq)


def qwen3(batch, seq, big=False):
    return _causal(_dense(hf.Qwen3Config, big, head_dim=64 if big else 16), batch, seq)


def mixtral(batch, seq, big=False):
    return _causal(_dense(hf.MixtralConfig, big, num_local_experts=4, num_experts_per_tok=2), batch, seq)


def qwen3_moe(batch, seq, big=False):
    return _causal(_dense(hf.Qwen3MoeConfig, big, head_dim=64 if big else 16, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256 if big else 32), batch, seq)


def _deepseek(batch, seq, big, **extra):
    heads = dict(num_attention_heads=8, num_key_value_heads=8) if big else dict(num_attention_heads=4, num_key_value_heads=4)
    config = _dense(hf.DeepseekV3Config, big, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=256 if big else 32, n_shared_experts=1, first_k_dense_replace=1, kv_lora_rank=32,
                    qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32, routed_scaling_factor=2.446, **heads, **extra)
    return _causal(config, batch, seq)


def deepseek_v3(batch, seq, big=False):
    return _deepseek(batch, seq, big, q_lora_rank=48, n_group=4, topk_group=2)


def deepseek_v3_no_q_lora(batch, seq, big=False):
    return _deepseek(batch, seq, big, q_lora_rank=None, n_group=1, topk_group=1)


def deepseek_v2(batch, seq, big=False):
    """Rotary positions as a product of complex numbers."""
    heads = 8 if big else 4
    config = _dense(hf.DeepseekV2Config, big, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=256 if big else 32, n_shared_experts=1, first_k_dense_replace=1, kv_lora_rank=32, q_lora_rank=48,
                    qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32, num_attention_heads=heads, num_key_value_heads=heads)
    return _causal(config, batch, seq)


def llama4(batch, seq, big=False):
    """Complex rotary positions too, a shared expert, and layers without positions."""
    config = _dense(hf.Llama4TextConfig, big, head_dim=64 if big else 16, intermediate_size_mlp=1024 if big else 96, num_local_experts=4, num_experts_per_tok=1, no_rope_layers=[1, 0], pad_token_id=0)
    return _causal(config, batch, seq, hf.Llama4ForCausalLM)


def _gpt2(batch, seq, big, dropout):
    config = hf.GPT2Config(vocab_size=320, n_positions=1024, n_embd=512 if big else 64, n_layer=2, n_head=8 if big else 4, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    return _causal(config, batch, seq)


def gpt2(batch, seq, big=False):
    return _gpt2(batch, seq, big, 0.0)


def gpt2_dropout(batch, seq, big=False):
    return _gpt2(batch, seq, big, 0.1)


def bert_dropout(batch, seq, big=False):
    config = hf.BertConfig(vocab_size=320, hidden_size=512 if big else 64, num_hidden_layers=2, num_attention_heads=8 if big else 4, intermediate_size=1024 if big else 96, max_position_embeddings=1024,
                           hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    return _causal(config, batch, seq, hf.BertForMaskedLM)


def vit(batch, seq, big=False):
    torch.manual_seed(0)
    config = hf.ViTConfig(hidden_size=512 if big else 64, num_hidden_layers=2, num_attention_heads=8 if big else 4, intermediate_size=1024 if big else 96, image_size=64 if big else 32, patch_size=8, num_labels=5)
    model = hf.ViTForImageClassification(config).train()
    g = torch.Generator().manual_seed(7)
    return model, {"pixel_values": torch.randn(batch, 3, config.image_size, config.image_size, generator=g), "labels": torch.randint(0, 5, (batch,), generator=g)}


def llava(batch, seq, big=False):
    torch.manual_seed(0)
    vision = hf.CLIPVisionConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8)
    config = hf.LlavaConfig(vision_config=vision, text_config=_dense(hf.LlamaConfig, big), image_token_index=2, image_seq_length=16, vision_feature_layer=-1)
    model = hf.LlavaForConditionalGeneration(config).train()
    ids = _ids(320, batch, max(seq, 20))
    ids[:, 1:17] = 2
    pixels = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone(), "pixel_values": pixels}


def qwen2_vl(batch, seq, big=False):
    """Its rotary positions follow from the image grid row by row; they are computed on the host and given in the batch."""
    torch.manual_seed(0)
    text = dict(vocab_size=320, hidden_size=512 if big else 64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
                rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24] if big else [2, 3, 3]})
    vision = dict(embed_dim=32, depth=2, num_heads=2, hidden_size=text["hidden_size"], mlp_ratio=2, patch_size=8, spatial_merge_size=2, temporal_patch_size=2, in_channels=3)
    config = hf.Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=2, video_token_id=1, vision_start_token_id=0)
    model = hf.Qwen2VLForConditionalGeneration(config).train()
    grid = torch.tensor([[1, 4, 4]] * batch)
    ids = _ids(320, batch, max(seq, 12))
    ids[:, 1:5] = 2
    pixels = torch.randn(batch * 16, 3 * 2 * 8 * 8, generator=torch.Generator().manual_seed(7))
    types = (ids == 2).long()
    rows = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone(), "pixel_values": pixels, "image_grid_thw": grid}
    kwargs = {"mm_token_type_ids": types} if "mm_token_type_ids" in inspect.signature(model.model.get_rope_index).parameters else {}
    positions, _ = model.model.get_rope_index(ids, image_grid_thw=grid, attention_mask=rows["attention_mask"], **kwargs)
    return model, {**rows, "position_ids": positions}


def opt(batch, seq, big=False):
    """Draws a number on the host for every layer, and lets it decide nothing."""
    config = hf.OPTConfig(vocab_size=320, hidden_size=512 if big else 64, num_hidden_layers=2, num_attention_heads=8 if big else 4, ffn_dim=1024 if big else 96, max_position_embeddings=1024, word_embed_proj_dim=512 if big else 64,
                          dropout=0.1, attention_dropout=0.0)
    return _causal(config, batch, seq)


def qwen3_next(batch, seq, big=False):
    """Linear attention: convolutions, decays, and gradients in layouts of their own."""
    config = _dense(hf.Qwen3NextConfig, big, head_dim=64 if big else 16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32, linear_num_key_heads=2, linear_num_value_heads=4,
                    linear_key_head_dim=16, linear_value_head_dim=16, layer_types=["linear_attention", "full_attention"])
    return _causal(config, batch, seq)


FAMILIES = {f.__name__: f for f in (llama, llama_tied, qwen3, mixtral, qwen3_moe, deepseek_v2, deepseek_v3, deepseek_v3_no_q_lora, llama4, gpt2, gpt2_dropout, bert_dropout, vit, llava, qwen2_vl, opt, qwen3_next)}
