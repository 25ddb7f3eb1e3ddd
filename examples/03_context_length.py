"""How much does a section read, the longer the video gets?"""

from pathlib import Path

from longtake.plan import VANILLA, make_plan
from longtake.schedule import parse

OUTPUT = Path("out/03_context_length.svg")
HEIGHT, WIDTH, FPS = 60, 104, 16  # latents of 480 x 832 pixels
LEFT, TOP, ACROSS, DOWN = 70, 60, 620, 260  # of the plot, in pixels

schedule = parse(VANILLA)
plan = make_plan(schedule, frames=1 + schedule.generated * 25)
a_frame = schedule.section_tokens(HEIGHT, WIDTH) // schedule.generated

seconds = [4 * section.frames[0] / FPS for section in plan.sections]
packed = [sum(look.tokens(HEIGHT, WIDTH) for look in section.sees) for section in plan.sections]
window = [a_frame * sum(len(look.frames) for look in section.sees) for section in plan.sections]
everything = [a_frame * section.frames[0] for section in plan.sections]


def line(tokens: list[int], color: str, text: str) -> str:
    """A curve and its name at its end."""
    marks = zip(seconds, tokens, strict=True)
    points = [(LEFT + ACROSS * s / seconds[-1], TOP + DOWN * (1 - n / everything[-1])) for s, n in marks]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    end = f'<text x="{LEFT + ACROSS + 10}" y="{points[-1][1] + 5:.0f}" fill="{color}">{text}</text>'
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="3"/>{end}'


times = [
    f'<text x="{LEFT + ACROSS * s / seconds[-1]:.0f}" y="{TOP + DOWN + 24}" text-anchor="middle">{s} s</text>'
    for s in range(0, int(seconds[-1]) + 1, 10)
]
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 940 370" font-family="sans-serif" font-size="13">
<rect width="940" height="370" rx="14" fill="#fbfaf7"/>
<text x="{LEFT}" y="36" font-size="16" font-weight="600">Tokens of history that a section reads, 480 x 832</text>
<path d="M{LEFT} {TOP}V{TOP + DOWN}H{LEFT + ACROSS}" fill="none" stroke="#9a9da6"/>
{line(everything, "#9a9da6", f"{everything[-1]:,}: all that was made")}
{line(window, "#3a5bd0", f"{window[-1]:,}: the last frames, unpacked")}
{line(packed, "#c46a10", f"{packed[-1]:,}: the same, packed")}
{"".join(times)}
<text x="{LEFT}" y="{TOP + DOWN + 44}" fill="#666b76">{schedule}</text>
</svg>
""")

for at, few, some, many in list(zip(seconds, packed, window, everything, strict=True))[::6]:
    print(f"{at:5.1f} s  packed {few:6,}  the same unpacked {some:7,}  all that was made {many:8,}")
print(f"wrote {OUTPUT}")
