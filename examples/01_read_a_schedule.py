"""What do schedule names say? Reads a few, prints what they cost, and draws each as a time line."""

from pathlib import Path

from longtake.schedule import Span, parse

OUTPUT = Path("out/01_read_a_schedule.svg")
NAMES = (
    "td_f16k4f2k2f1k1_g9",
    "td_f1k1_x_f16k4f2k2f1k1_g9",
    "td_f8k8f4k4f2k2f1k1_g9",
    "f1k1_x_g9_f1k1f2k2f16k4_td",
)
HEIGHT, WIDTH = 60, 104  # latents of 480 x 832 pixels
TALL, STEP, ROW = 44, 14, 112  # of a frame at k1, from frame to frame, from line to line; in pixels
COLORS = {1: "#c46a10", 2: "#e39a3b", 4: "#f0c27b", 8: "#f6dfb4"}


def bars(spans: tuple[Span, ...], x: int, floor: int) -> tuple[list[str], int]:
    """A bar for each frame, the lower the coarser it is read, and where the next one would stand."""
    drawn = []
    for span in spans:
        for _ in range(span.frames):
            tall, color = TALL / span.kernel.t, COLORS[span.kernel.t]
            drawn.append(f'<rect x="{x}" y="{floor - tall}" width="10" height="{tall}" rx="2" fill="{color}"/>')
            x += STEP
    return drawn, x


drawing: list[str] = []
for row, name in enumerate(NAMES):
    schedule = parse(name)
    assert str(schedule) == name
    context, made = schedule.context_tokens(HEIGHT, WIDTH), schedule.section_tokens(HEIGHT, WIDTH)
    print(f"{name:28} reads {context:5,} tokens to make {made:,}")
    floor = 96 + row * ROW
    label = f'{name}<tspan fill="#666b76" dx="16">{context:,} tokens of history, {made:,} new</tspan>'
    drawing.append(f'<text x="40" y="{floor - TALL - 12}">{label}</text>')
    left, x = bars(schedule.left.far, 40, floor)
    near, x = bars(schedule.left.near, x + (30 if left else 0), floor)
    x += 8 if near else 0
    for _ in range(schedule.generated):  # the frames that are made
        box = f'x="{x}" y="{floor - TALL}" width="10" height="{TALL}" rx="2"'
        drawing.append(f'<rect {box} fill="#dfe6fb" stroke="#3a5bd0"/>')
        x += STEP
    right, x = bars(schedule.right.near, x + 8, floor)
    drawing += left + near + right
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
size = f'viewBox="0 0 680 {16 + ROW * len(NAMES)}"'
card = '<rect width="100%" height="100%" rx="14" fill="#fbfaf7"/>'
text = 'font-family="ui-monospace, monospace" font-size="14"'
OUTPUT.write_text(
    f'<svg xmlns="http://www.w3.org/2000/svg" {size} {text}>\n{card}\n' + "\n".join(drawing) + "\n</svg>\n"
)
print(f"wrote {OUTPUT}")
