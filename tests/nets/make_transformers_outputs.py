"""Writes `transformers_outputs.npz`: logits of GPT-2 and Llama of the transformers library, weights made from names.

To be run where torch and transformers are installed; the tests need neither. Written with torch 2.13.0 and
transformers 5.23.0:

    python tests/nets/make_transformers_outputs.py
"""

import pathlib
import zlib

import numpy as np

HERE = pathlib.Path(__file__).parent
SIZES = {"tokens": 11, "length": 6, "width": 16, "depth": 2, "heads": 2, "hidden": 24}
TEXT = np.array([[3, 1, 4, 1, 5, 9], [2, 7, 10, 8, 0, 8]])


def named(name, shape):
    """Numbers that depend on a name only: normal, and large enough that every part of a network matters."""
    draws = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape) * 0.3
    is_scale = len(shape) == 1 and name.endswith("weight")
    return (draws + is_scale).astype(np.float32)


def logits(model):
    """Logits `[2, 6, 11]` of the texts, every parameter made from its name."""
    import torch

    for name, parameter in model.named_parameters():
        name = name.removeprefix("transformer.").removeprefix("model.")
        parameter.data = torch.from_numpy(named(name, tuple(parameter.shape)))
    with torch.no_grad():
        return model.eval()(torch.from_numpy(TEXT)).logits.numpy()


def main():
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    depth, width, heads, length = SIZES["depth"], SIZES["width"], SIZES["heads"], SIZES["length"]
    gpt2 = GPT2Config(vocab_size=11, n_positions=length, n_embd=width, n_layer=depth, n_head=heads)
    llama = LlamaConfig(
        vocab_size=11,
        hidden_size=width,
        intermediate_size=SIZES["hidden"],
        num_hidden_layers=depth,
        num_attention_heads=heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    outputs = {"gpt2": logits(GPT2LMHeadModel(gpt2)), "llama": logits(LlamaForCausalLM(llama))}
    np.savez_compressed(HERE / "transformers_outputs.npz", **outputs)


if __name__ == "__main__":
    main()
