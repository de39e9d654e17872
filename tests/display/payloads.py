"""What hostile output tries: script by every road we know, requests to elsewhere, and escapes for a terminal."""

from __future__ import annotations

SCRIPT = "window.__owned=1"
ELSEWHERE = "http://203.0.113.7"

BARE = (
    f"<script>{SCRIPT}</script>",
    f"<ScRiPt >{SCRIPT}</sCrIpT>",
    f"<script/src={ELSEWHERE}/x.js></script>",
    f"<img src=x onerror={SCRIPT}>",
    f"<img src={ELSEWHERE}/x.png>",
    f'<img """><script>{SCRIPT}</script>">',
    f"<svg onload={SCRIPT}>",
    f"<svg/onload={SCRIPT}//",
    f"<svg><script>{SCRIPT}</script></svg>",
    f"<svg><animate onbegin={SCRIPT} attributeName=x dur=1s>",
    f"<svg><a xlink:href=javascript:{SCRIPT}><text y=20>x</text></a></svg>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={SCRIPT}>",
    f"<math><maction actiontype=statusline xlink:href=javascript:{SCRIPT}>x</maction></math>",
    f"<iframe src=javascript:{SCRIPT}></iframe>",
    f"<iframe srcdoc='<script>{SCRIPT}</script>'></iframe>",
    f"<iframe src={ELSEWHERE}></iframe>",
    f"<object data=javascript:{SCRIPT}></object>",
    f"<embed src=javascript:{SCRIPT}>",
    f"<body onload={SCRIPT}>",
    f"<input autofocus onfocus={SCRIPT}>",
    f"<details open ontoggle={SCRIPT}>",
    f"<video><source onerror={SCRIPT}>",
    f"<audio src=x onerror={SCRIPT}>",
    f"<marquee onstart={SCRIPT}>",
    f"<form action=javascript:{SCRIPT}><button>x</button></form>",
    f"<button formaction=javascript:{SCRIPT}>x</button>",
    f"<link rel=stylesheet href={ELSEWHERE}/x.css>",
    f"<meta http-equiv=refresh content='0;url=javascript:{SCRIPT}'>",
    f"<base href={ELSEWHERE}/>",
    f"<style>@import '{ELSEWHERE}/x.css';</style>",
    f'<div style="background:url({ELSEWHERE}/x.png)">x</div>',
    f"<p style='behavior:url(x)' onmouseover={SCRIPT}>x</p>",
    f'<noscript><p title="</noscript><img src=x onerror={SCRIPT}>">',
    f"<textarea></textarea><img src=x onerror={SCRIPT}>",
    f"</pre></code></div><img src=x onerror={SCRIPT}>",
    f"--><img src=x onerror={SCRIPT}>",
    f'<!--<img src="--><img src=x onerror={SCRIPT}>">',
    f"<![CDATA[<img src=x onerror={SCRIPT}>]]>",
    f"<?xml version='1.0'?><img src=x onerror={SCRIPT}>",
    f'" onmouseover="{SCRIPT}',
    f"' onfocus='{SCRIPT}' autofocus='",
    f"&lt;img src=x onerror={SCRIPT}&gt;",
    f"&#60;script&#62;{SCRIPT}&#60;/script&#62;",
    f"\u003cscript\u003e{SCRIPT}\u003c/script\u003e",
    f"<a href=javascript:{SCRIPT}>x</a>",
    f"<x onclick={SCRIPT}>x</x>",
    f"$$\\href{{javascript:{SCRIPT}}}{{x}}$$",
    f"$\\url{{javascript:{SCRIPT}}}$",
    f'\\(\\class{{x" onclick="{SCRIPT}}}{{y}}\\)',
    f"$$\\unicode{{<img src=x onerror={SCRIPT}>}}$$",
    f"\\[\\style{{background:url({ELSEWHERE}/x.png)}}{{x}}\\]",
)

_ADDRESSES = (
    f"javascript:{SCRIPT}",
    f"JaVaScRiPt:{SCRIPT}",
    f" javascript:{SCRIPT}",
    f"java\tscript:{SCRIPT}",
    f"java\nscript:{SCRIPT}",
    f"\x01javascript:{SCRIPT}",
    f"&#106;avascript:{SCRIPT}",
    f"&#x6A;avascript&colon;{SCRIPT}",
    f"javascript&#58;{SCRIPT}",
    f"vbscript:{SCRIPT}",
    f"data:text/html,<script>{SCRIPT}</script>",
    "data:text/html;base64,PHNjcmlwdD53aW5kb3cuX19vd25lZD0xPC9zY3JpcHQ+",
    f"file:///etc/passwd?{SCRIPT}",
    f"blob:{ELSEWHERE}",
    "//203.0.113.7/x",
    "/lab/api/x",
    "../secrets",
    "mailto:a@b.example",
    f"http:javascript:{SCRIPT}",
    "http:///nohost",
    f'http://a.example/"onmouseover="{SCRIPT}',
    f"http://a.example/'onmouseover='{SCRIPT}",
    "http://[::1",
    f"{ELSEWHERE}/x.png",
    "https://u:p@203.0.113.7/\u202egnp.js",
    "command:workbench.action.terminal",
    f"feed:javascript:{SCRIPT}",
)
_ROADS = (
    "[x]({})", "[x](<{}>)", "[x]({} \"t\")", "![x]({})", "![x](<{}>)", "[![x]({})]({})", "<{}>",
    "[x][r]\n\n[r]: {}", "[x][r]\n\n[r]: <{}> 't'", "![x][r]\n\n[r]: {}", "| a |\n|---|\n| [x]({}) |",
)  # fmt: skip
_BODIES = (
    "{}", "**{}**", "# {}", "> {}", "- {}", "`{}", "```\n{}", "```html\n{}\n```", "    {}", "| a |\n|---|\n| {} |",
    "text {} text", "[{}](http://a.example)", "![{}](http://a.example/x.png)", "[x](http://a.example \"{}\")",
    "```{}\ncode\n```", "1. {}\n   - {}",
)  # fmt: skip

MARKDOWN = tuple(
    [body.replace("{}", payload) for payload in BARE for body in _BODIES]
    + [road.replace("{}", address) for address in _ADDRESSES for road in _ROADS]
)
"""Every bare payload in every place Markdown has, and every address on every road to a link or a picture."""

TERMINAL = (
    "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07",
    "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mred", "\x9d0;title\x9c", "\x1bP1$r0m\x1b\\", "\x1b^pm\x1b\\", "\x1b_apc\x1b\\", "\x1bXsos\x1b\\",
    "\x1bc", "\x1b(0",
    "\x1b[?1049h", "\x08\x08\x08gone", "\x07", "\x00", "\x0e", "\x7f", "\x85", "\u202eevil\u202c",
    "\u2066iso\u2069", "\u200f", "\u061c",
    "\ud800", "\x1b]0;unfinished", "\x1b[", "\x1b", "\x1b[38;5;196mx", "\x1b#8", "\x1b]1337;File=:AAAA\x07",
)  # fmt: skip
