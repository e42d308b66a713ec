"""The peer's side of `benchmarks.gpt`: GPT-2 of transformers, in torch (`pip install torch transformers`)."""

from typing import Any

import torch
import transformers

from benchmarks.serving import Works, serve, sizes


def build(told: dict[str, Any]) -> Any:
    """The network, without dropout."""
    config = transformers.GPT2Config(
        vocab_size=told["num_tokens"],
        n_positions=told["length"],
        n_embd=told["width"],
        n_layer=told["depth"],
        n_head=told["num_heads"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def work(net: Any, told: dict[str, Any]) -> Works:
    """A train step, and draws of one window or of several."""
    data = torch.randint(0, told["num_tokens"], (told["batch"], told["length"]))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)

    def train() -> None:
        optimizer.zero_grad()
        net(input_ids=data, labels=data).loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def draw(num: int) -> Any:
        token, cache, drawn = torch.zeros(num, 1, dtype=torch.long), None, []
        for _ in range(told["length"]):
            output = net(input_ids=token, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            token = torch.multinomial(output.logits[:, -1].softmax(-1), 1)
            drawn.append(token)
        return torch.cat(drawn, 1)

    return {"train": train, "draw_one": lambda: draw(1), "draw_batch": lambda: draw(told["batch"])}


if __name__ == "__main__":
    told = sizes()
    torch.manual_seed(0)
    torch.set_num_threads(told["threads"])
    net = build(told)
    count = sum(parameter.numel() for parameter in net.parameters())
    serve(work(net, told), count, {"torch": torch.__version__, "transformers": transformers.__version__})
