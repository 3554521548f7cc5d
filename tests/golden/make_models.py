"""Tiny random models in the published directory format, with fixed seeds, for every geometry that matters.

Usage: make_models.py OUT_DIR [NAME ...]     NAME: all by default

Weights are drawn wide enough that logits differ clearly (std 0.08, norms around 1); each directory also
gets a byte-level tokenizer that covers the vocabulary, so that a whole cluster can serve it.
"""

import json
import os
import sys

import torch
import transformers as T
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
COMMON = dict(max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0)

# name: (config class, model class, config, dtype)
MODELS = {
    "llama-untied": (T.LlamaConfig, T.LlamaForCausalLM, dict(vocab_size=320, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False), torch.float32),
    "llama-tied-llama3": (T.LlamaConfig, T.LlamaForCausalLM, dict(vocab_size=300, hidden_size=96, intermediate_size=160,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, head_dim=24, tie_word_embeddings=True,
        rope_parameters=LLAMA3), torch.float32),
    "llama-bias": (T.LlamaConfig, T.LlamaForCausalLM, dict(vocab_size=300, hidden_size=60, intermediate_size=100,
        num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3, head_dim=20, attention_bias=True,
        mlp_bias=True, tie_word_embeddings=False), torch.float32),
    "qwen2-bias": (T.Qwen2Config, T.Qwen2ForCausalLM, dict(vocab_size=320, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True), torch.float32),
    "qwen3": (T.Qwen3Config, T.Qwen3ForCausalLM, dict(vocab_size=300, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
        torch.float32),
    "qwen3-h48": (T.Qwen3Config, T.Qwen3ForCausalLM, dict(vocab_size=333, hidden_size=80, intermediate_size=112,
        num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2, head_dim=48, tie_word_embeddings=False),
        torch.float32),
    "qwen3-yarn": (T.Qwen3Config, T.Qwen3ForCausalLM, dict(vocab_size=300, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1, head_dim=32, tie_word_embeddings=True,
        rope_parameters=YARN), torch.float32),
    "llama-linear": (T.LlamaConfig, T.LlamaForCausalLM, dict(vocab_size=300, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False,
        rope_parameters=LINEAR), torch.float32),
    "qwen3-bf16": (T.Qwen3Config, T.Qwen3ForCausalLM, dict(vocab_size=384, hidden_size=128, intermediate_size=224,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
        torch.bfloat16),
    "qwen3-f16": (T.Qwen3Config, T.Qwen3ForCausalLM, dict(vocab_size=300, hidden_size=64, intermediate_size=96,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
        torch.float16),
}


def write_tokenizer(directory, n_vocab):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<pad>": 0, "<bos>": 1, "<eos>": 2}
    for c in alphabet:
        vocab[c] = len(vocab)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(["<pad>", "<bos>", "<eos>"])
    tok.add_tokens([f"<extra{i}>" for i in range(n_vocab - len(vocab))])
    tok.save(os.path.join(directory, "tokenizer.json"))
    with open(os.path.join(directory, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                   "pad_token": "<pad>"}, f)
    with open(os.path.join(directory, "chat_template.jinja"), "w") as f:
        f.write("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
                "{% if add_generation_prompt %}assistant: {% endif %}")


def make(name, out, seed=0):
    config_class, model_class, conf, dtype = MODELS[name]
    torch.manual_seed(seed + sorted(MODELS).index(name))
    model = model_class(config_class(**COMMON, **conf)).float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim >= 2:
                p.normal_(0, 0.08)
            elif key.endswith("bias"):
                p.normal_(0, 0.2)
            else:
                p.normal_(1, 0.1)
    directory = os.path.join(out, name)
    model.to(dtype).save_pretrained(directory)
    write_tokenizer(directory, conf["vocab_size"])
    return directory


if __name__ == "__main__":
    for n in sys.argv[2:] or MODELS:
        print(make(n, sys.argv[1]))
