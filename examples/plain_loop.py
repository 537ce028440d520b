"""Train two small encoders on the embedded data set in a plain PyTorch loop with moco_atc_atm.

    python examples/plain_loop.py OUT [EPOCHS]

Offline and from random weights, in about a minute on two cores. `RetrievalModel` can be any module
with `audio(**audio)`, `text(**text)`, `match(text_tokens, audio_tokens)` and `embed_dim`.
"""

import sys
from functools import partial

import torch

from atr_moco_plugin.criterion import MocoAtcAtm, MocoAtcAtmConfig
from atr_moco_plugin.data import AudioReader, PairLoader, ToyConfig, iterate_audio, open_toy
from atr_moco_plugin.evaluation import retrieval_metrics
from atr_moco_plugin.model import build_model, model_config
from atr_moco_plugin.optim.param_groups import parameter_groups
from atr_moco_plugin.rank import RankLogger
from atr_moco_plugin.text.tokenizer import tokenize, train_wordpiece

out, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10
torch.manual_seed(0)
data = open_toy(ToyConfig(num_train=200, num_valid=50, num_test=1, single_share=1, cache=True))
tokenizer = train_wordpiece([text for clip in data.clips("train") for text in clip.captions])
tokens = partial(tokenize, tokenizer, max_tokens=32)
audio = dict(embed_dim=48, encoder_layers=2, encoder_embed_dim=48, encoder_ffn_embed_dim=96,
             encoder_attention_heads=2, conv_pos=16, conv_pos_groups=4)  # fmt: skip
text = dict(vocab_size=len(tokenizer), hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=96, initializer_range=0.14)  # fmt: skip
parts = {"audio": {"name": "beats", "config": audio}, "text": {"name": "bert", "config": text}}
model = build_model(model_config({**parts, "embed_dim": 64}))
data.read_with(AudioReader(model.sample_rate))
loader = PairLoader(data, "train", tokens, 32, max_seconds=4, shuffle=True, seed=0, drop_last=True)
criterion = MocoAtcAtm(model, MocoAtcAtmConfig(queue_size=512, queue_warmup_steps=40, momentum=0.9))
optimizer = torch.optim.AdamW(parameter_groups(criterion, weight_decay=0.05), lr=2e-3)
criterion.attach(optimizer)
criterion.total_steps = epochs * len(loader)  # schedules go by it
rank = RankLogger(criterion.queues, f"{out}/rank.jsonl", every=5)


@torch.no_grad()
def r_sum() -> float:
    criterion.eval()
    split = data.retrieval_set("valid")
    clips = torch.cat([model.audio(*batch)[0] for batch in iterate_audio(data, split.clips, 32, 4)])
    captions = model.text(*tokens(split.captions))[0]
    return retrieval_metrics(clips @ captions.T, split.caption_to_audio)["r_sum"]


print(f"before: r_sum {r_sum():.1f} of 600")
for epoch in range(1, epochs + 1):
    for step, batch in enumerate(loader, start=1 + (epoch - 1) * len(loader)):
        losses = criterion.train()(batch.audio, batch.text, batch.clip_ids, batch.caption_ids)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        rank.log(step)
    print(f"epoch {epoch}:", *(f"{name} {value.item():.3f}" for name, value in losses.items()))
print(f"after: r_sum {r_sum():.1f} of 600")
