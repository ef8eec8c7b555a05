"""What bounds each phase of the GPU check's step, by the data sheets: the table of docs/performance.md.

    python benchmarks/gpu_bounds.py
"""

from __future__ import annotations

from gpu_check_report import model_flops

from mixed_r1_ray.scale.architecture import read_architecture
from mixed_r1_ray.scale.hardware import DEVICES
from mixed_r1_ray.scale.memory import ADAM_BYTES
from mixed_r1_ray.scale.operations import decode_bytes, decode_flops

PROMPTS, GROUP, PROMPT_TOKENS, PICTURE_TOKENS, RESPONSE_TOKENS = 8, 8, 300, 256, 1536
BYTES = 2  # bfloat16


def main() -> None:
    context, batch = PROMPT_TOKENS + RESPONSE_TOKENS / 2, PROMPTS * GROUP
    for name in ("Qwen/Qwen2.5-VL-3B-Instruct", "OpenGVLab/InternVL3-2B-hf"):
        model = read_architecture(name)
        changing = model.changing("vision")
        flops = PROMPTS * model_flops(model, PROMPT_TOKENS, PICTURE_TOKENS, [RESPONSE_TOKENS] * GROUP, "vision")
        tokens = PROMPTS * (PROMPT_TOKENS + GROUP * RESPONSE_TOKENS)
        print(f"\n{name}: an update on {tokens:,} tokens, {flops / 1e15:.2f} PFLOP; a sync sends {BYTES * changing / 1e9:.1f} GB")
        for card in ("H100", "H200"):
            device = DEVICES[card]
            read = decode_bytes(model.language, batch, context, BYTES) / device.memory_rate
            computed = batch * decode_flops(model.language, context) / device.flops
            print(
                f"  {card}: decode step {1e3 * read:.1f} ms (arithmetic {1e3 * computed:.2f}); update "
                f"{flops / device.flops:.1f} s, {flops / device.flops / 0.35:.1f} at 35 %; copy "
                f"{1e3 * 2 * BYTES * changing / device.memory_rate:.1f} ms; AdamW's state to the host "
                f"{ADAM_BYTES * changing / device.host_rate:.2f} s"
            )


if __name__ == "__main__":
    main()
