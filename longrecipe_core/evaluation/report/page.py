"""The page: one HTML file with no script and nothing from the network, for a phone and a desk, light and dark."""

import base64
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from longrecipe_core.evaluation.report.parts import Bars, Part, Section

BAR_WIDTH, BAR_HEIGHT = 30, 120

# Pictures are drawn on white. In the dark their lightness is turned round and their hues are kept; white becomes
# #191919, which is the page's dark background.
STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --text: #1c1c1c; --faint: #5c5c5c; --line: #d4d4d4; --link: #0b57a4;
  --heat: 82%; --code: #f5f5f5; }
@media (prefers-color-scheme: dark) {
  :root { --page: #191919; --text: #e6e6e6; --faint: #a9a9a9; --line: #454545; --link: #8ab8ee; --heat: 24%;
    --code: #232323; }
  img { filter: invert(0.9) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; background: var(--page);
  color: var(--text); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0; }
h2, summary { font-size: 1.25rem; font-weight: 600; line-height: 1.3; margin: 2.2rem 0 0.6rem; }
h2 { border-top: 1px solid var(--line); padding-top: 0.8rem; }
details { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: 0.8rem; }
summary { margin: 0 0 0.6rem; cursor: pointer; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.3rem; }
p { margin: 0.5rem 0; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; margin: 0.8rem 0; }
.scroll { overflow-x: auto; margin: 0.3rem 0 0.9rem; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: 0.25rem 1rem 0.25rem 0; text-align: right; white-space: nowrap; vertical-align: top; }
td.name, th.name { text-align: left; }
table.facts td + td { white-space: normal; overflow-wrap: anywhere; }
th { white-space: normal; font-weight: 400; color: var(--faint); border-bottom: 1px solid var(--line);
  vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid color-mix(in srgb, var(--line) 45%, transparent); }
.pictures, .maps { display: flex; flex-wrap: wrap; gap: 0.5rem 2rem; align-items: flex-start; }
figure { margin: 0; max-width: 100%; }
figcaption { font-size: 0.875rem; color: var(--faint); }
img { display: block; max-width: 100%; height: auto; }
img.wide { width: 34rem; }
.pictures img { width: 19rem; }
.heat th, .heat td { padding: 0.15rem 0.45rem; border: 0; text-align: center; }
.heat td { background: hsl(calc(var(--score) * 1.2) 55% var(--heat)); min-width: 2.6rem; }
.heat td.none { background: none; }
@media (max-width: 40rem) {
  td.name:first-child, th.name:first-child { white-space: normal; min-width: 5.5rem; padding-right: 0.7rem; }
  table:not(.facts):not(.heat) td.name:first-child { position: sticky; left: 0; background: var(--page); }
}
pre { font-size: 0.8125rem; line-height: 1.45; overflow-x: auto; background: var(--code); padding: 0.8rem; margin: 0; }
svg { display: block; max-width: 100%; height: auto; fill: currentColor; }
"""

TEMPLATE = """\
{%- macro table(part) %}
{% if part.title %}<h3>{{ part.title }}</h3>
{% endif %}<div class="scroll" tabindex="0"><table{% if not part.head %} class="facts"{% endif %}>
{% if part.head %}<thead><tr>
{%- for cell in part.head %}<th{% if loop.index <= part.names %} class="name"{% endif %} scope="col">{{ cell }}</th>
{%- endfor %}</tr></thead>
{% endif %}<tbody>
{% for row in part.rows %}<tr>
{%- for cell in row %}<td{% if loop.index <= part.names %} class="name"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endmacro -%}
{%- macro maps(part) %}
<h3>{{ part.title }}</h3>
<div class="maps">
{% for map in part.maps %}<figure class="scroll" tabindex="0"><figcaption>{{ map.title }}</figcaption>
<table class="heat"><thead><tr><th></th>
{%- for name in map.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for name in map.rows %}<tr><th scope="row">{{ name }}</th>
{%- for score in map.cells[loop.index0] %}
{%- if score is none %}<td class="none"></td>
{%- else %}<td style="--score: {{ '%.1f' | format(score) }}">{{ '%.0f' | format(score) }}</td>
{%- endif %}{% endfor %}</tr>
{% endfor %}</tbody></table></figure>
{% endfor %}</div>
{% endmacro -%}
{%- macro bars(part) %}
<p>{{ part.what }}</p>
<svg viewBox="0 0 {{ width * part.front | length }} {{ height }}" width="{{ width * part.front | length }}" role="img" \
aria-label="{{ part.what }}">
{%- for x, y, tall, opacity, share in rectangles(part) -%}
<rect x="{{ x }}" y="{{ y }}" width="{{ width - 2 }}" height="{{ tall }}" opacity="{{ opacity }}">\
<title>{{ share }}</title></rect>
{%- endfor %}</svg>
{% endmacro -%}
{%- macro image(picture, class) -%}
<img class="{{ class }}" alt="{{ picture.what }}" src="data:image/png;base64,{{ base64(picture.png) }}">
{% endmacro -%}
{%- macro draw(part) %}
{%- set kind = kind_of(part) %}
{%- if kind == "Text" %}<p>{{ part.text }}</p>
{% elif kind == "Code" %}<pre tabindex="0">{{ part.text }}</pre>
{% elif kind == "Table" %}{{ table(part) }}
{%- elif kind == "HeatMaps" %}{{ maps(part) }}
{%- elif kind == "Pictures" %}<div class="pictures">
{% for one in part.pictures %}{{ image(one, "") }}{% endfor %}</div>
{% elif kind == "Bars" %}{{ bars(part) }}
{%- else %}{{ image(part, "wide") }}
{%- endif %}
{%- endmacro -%}
{%- macro content(section) %}
{%- for part in section.parts %}{{ draw(part) }}{% endfor %}
{%- endmacro -%}
{%- macro one(section) %}
{%- if section.folded %}<details id="{{ section.anchor }}"><summary>{{ section.title }}</summary>
{{ content(section) }}</details>
{% else %}<h2 id="{{ section.anchor }}">{{ section.title }}</h2>
{{ content(section) }}
{%- endif %}
{%- endmacro -%}
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<h1>{{ title }}</h1>
{% for line in summary %}<p>{{ line }}</p>
{% endfor %}<nav aria-label="sections">
{%- for section in sections %}<a href="#{{ section.anchor }}">{{ section.title }}</a>{% endfor %}</nav>
{% for section in sections %}{{ one(section) }}{% endfor %}</body>
</html>
"""


def render(title: str, summary: Sequence[str], sections: Sequence[Section]) -> str:
    """The page. All texts are escaped."""
    return (
        _environment()
        .from_string(TEMPLATE + PAGE)
        .render(title=title, summary=summary, sections=sections, style=Markup(STYLE))
    )


def render_section(section: Section) -> str:
    """One section of the page, as HTML."""
    return _environment().from_string(TEMPLATE + "{{ one(section) }}").render(section=section)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.globals.update(
        width=BAR_WIDTH, height=BAR_HEIGHT, kind_of=_kind, rectangles=_rectangles, base64=_base64
    )
    return environment


def _kind(part: Part) -> str:
    return type(part).__name__


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _rectangles(bars: Bars) -> list[tuple[int, str, str, float, str]]:
    """Left edge, top, height, opacity and share of each bar, of each pair the back one first."""
    highest = max(*bars.front, *bars.back, 1e-9)
    return [
        (place * BAR_WIDTH, f"{BAR_HEIGHT - tall:.1f}", f"{tall:.1f}", opacity, f"{share:.3f}")
        for place, pair in enumerate(zip(bars.back, bars.front, strict=True))
        for share, opacity in zip(pair, (0.2, 0.6), strict=True)
        for tall in [BAR_HEIGHT * share / highest]
    ]
