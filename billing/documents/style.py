"""How an invoice looks, on a screen and on A4: one style sheet, from nowhere else."""

from string import Template
from typing import Final

from billing.documents.markup import css_text

# Faces whose figures can be of one width; then those of Chinese, Japanese and Korean.
_FACES: Final = (
    '"Helvetica Neue", "Segoe UI", "Liberation Sans", Arial, "PingFang SC", "Hiragino Sans",'
    ' "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",'
    ' "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", sans-serif'
)


def style_sheet(
    *, running_head: str, warning: str, has_energy: bool, has_parts: bool = False
) -> str:
    """Return the sheet; on paper the head runs from the second page on, a warning on every page.

    What only energy needs, or documents of more than one part, is left out without them: such
    pages stay as they always were.
    """
    sheet = _SHEET.substitute(
        faces=_FACES, running_head=css_text(running_head), warning=css_text(warning)
    )
    return sheet + (_ENERGY if has_energy else "") + (_PARTS if has_parts else "")


_SHEET: Final = Template(r"""
:root { --ink: #15181c; --soft: #5d6670; --faint: #7a838c; --hair: #dde1e5; --alarm: #a5180e; }
* { box-sizing: border-box; margin: 0; }
html { background: #eef0f2; color: var(--ink); -webkit-text-size-adjust: 100%; }
body { font: 400 14px/1.5 $faces; font-variant-numeric: tabular-nums lining-nums;
  overflow-wrap: anywhere; }
main { max-width: 210mm; margin: 40px auto; padding: 68px; background: #fff;
  box-shadow: 0 1px 2px rgb(0 0 0 / .05), 0 16px 48px rgb(0 0 0 / .06); }
h1 { font-size: 36px; font-weight: 300; line-height: 1.1; letter-spacing: -.022em; }
h2, dt, th, .note, .line, .code, .terms, footer { font-size: 11.5px; font-weight: 400; }
h2, dt, th, .note, .line, .code, .terms, footer { color: var(--soft); }
strong, .name { font-weight: 600; }

.banner { padding: 13px 18px 14px; margin-bottom: 14px; border: 1.5px solid var(--alarm);
  border-radius: 3px; color: var(--alarm); }
.banner strong { display: block; font-size: 17px; line-height: 1.4; letter-spacing: -.006em; }
.banner.sandbox { background: var(--alarm); color: #fff; }
.banner + header { margin-top: 48px; }

header, .parties { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr);
  gap: 28px 44px; }
header .title { margin-top: 6px; font-size: 16px; }
.parties { margin-top: 44px; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 4px 22px;
  align-content: start; align-items: baseline; }

.due { display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline;
  gap: 0 24px; margin-top: 48px; padding: 13px 0 15px; border: solid var(--ink);
  border-width: 1px 0; }
.due .amount { font-size: 24px; font-weight: 600; letter-spacing: -.012em; }
.code { letter-spacing: .02em; margin-right: .5em; }

table { --gap: 16px; width: 100%; margin-top: 40px; border-spacing: 0;
  table-layout: fixed; }
th, td { padding: 6px 0 6px var(--gap); text-align: left; vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
thead th { padding: 0 0 8px var(--gap); vertical-align: bottom; }
thead tr:last-child > * { border-bottom: 1px solid var(--ink); }
thead .model { padding-bottom: 7px; font-size: 15px; font-weight: 600; line-height: 1.4;
  color: var(--ink); }
tbody td { border-bottom: 1px solid var(--hair); }
tbody tr:last-child td { border-bottom: 0; }
td.line { padding-top: 8.75px; }
td.number, th.number { text-align: right; }
th.number { white-space: nowrap; }
.again { color: var(--faint); }
.fraction { display: inline-block; min-width: calc(var(--decimals) * 1ch + .3em);
  text-align: left; }
.note { display: block; line-height: 1.4; }
.class .note, .sold .note { margin-right: calc(-1 * var(--beside)); }
.dense { --gap: 12px; font-size: 12px; }
.subtotal td { font-weight: 600; }
.subtotal td:first-child { padding-top: 8.75px; font-size: 11.5px; font-weight: 400;
  color: var(--soft); text-align: right; }
.nothing { margin-top: 40px; color: var(--soft); }

.total { display: flex; flex-wrap: wrap; justify-content: flex-end; align-items: baseline;
  gap: 0 28px; margin-top: 36px; padding: 14px 0 0; border-top: 1px solid var(--ink); }
.total .amount { font-size: 24px; font-weight: 600; letter-spacing: -.012em; }
.held { margin-top: 44px; padding: 16px 18px; border: 1.5px solid var(--alarm);
  border-radius: 3px; }
.held h2 { font-size: 14px; font-weight: 600; color: var(--alarm); }
.held table { margin-top: 8px; }
footer { margin-top: 56px; padding-top: 12px; border-top: 1px solid var(--hair); }

@media screen and (max-width: 700px) {
  main { margin: 0; padding: 32px 22px; box-shadow: none; }
  header, .parties { grid-template-columns: minmax(0, 1fr); }
  table, thead, tbody { display: block; }
  tr { display: grid; grid-template-columns: auto auto minmax(0, 1fr); }
  tbody tr { padding: 9px 0; border-bottom: 1px solid var(--hair); }
  tbody tr:last-child { border-bottom: 0; }
  tbody td, thead tr:last-child .model { padding: 0; border: 0; }
  .line, thead th.number, thead td { display: none; }
  .model, .sold, .class { grid-column: 1 / 4; }
  .tier, .sold, .held td { grid-column: 1 / 3; }
  .billed, .held .number { grid-area: 1 / 3; }
  .quantity, .price { color: var(--soft); }
  .price::before { content: "\A0× "; }
  .fraction { min-width: 0; }
  .class .note, .sold .note { margin-right: 0; }
}

@page { size: A4; margin: 20mm 18mm 21mm;
  @top-left { content: $warning; font: 600 8pt $faces; color: #a5180e; white-space: pre; }
  @top-right { content: $running_head; font: 8pt $faces; color: #5d6670; }
  @bottom-right { content: "Page " counter(page) " of " counter(pages); font: 8pt $faces;
    color: #5d6670; }
}
@page :first { @top-right { content: none; } }
@media print {
  html { background: none; }
  body { font-size: 13px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; margin: 0; padding: 0; box-shadow: none; }
  tr, .banner, .due, .total, .held, footer { break-inside: avoid; }
  thead { display: table-header-group; }
  thead tr { break-after: avoid; }
  .kept { break-inside: avoid; }
  .subtotal, .total, footer { break-before: avoid; }
  th, td { padding-top: 4px; padding-bottom: 4px; }
  td.line, .subtotal td:first-child { padding-top: 5.75px; }
  tbody tr:first-child:not(:last-child), tr:nth-last-child(3) { break-after: avoid; }
  .parties, .due { margin-top: 36px; }
  table { margin-top: 30px; }
}
""")
_ENERGY: Final = """
.energy { margin-top: 44px; padding: 14px 18px 16px; border: 1px solid var(--hair);
  border-radius: 3px; break-inside: avoid; }
.energy dl { margin-top: 8px; font-size: 12.5px; }
@media print {
  .energy { margin-top: 26px; padding: 10px 14px 11px; }
  .energy dl { gap: 2px 20px; }
  .energy + footer { margin-top: 34px; }
}
"""
_PARTS: Final = """
.part { margin-top: 44px; font-size: 17px; font-weight: 600; color: var(--ink);
  break-after: avoid; }
.part + table { margin-top: 18px; }
.part-sum, .sums { display: grid; grid-template-columns: minmax(0, 1fr) max-content; gap: 4px 28px;
  text-align: right; align-items: baseline; }
.part-sum { margin-top: 10px; font-weight: 600; break-before: avoid; break-inside: avoid; }
.part-sum dt { text-align: right; }
.sums { margin-top: 36px; padding-top: 14px; border-top: 1px solid var(--ink);
  break-inside: avoid; break-after: avoid; }
.sums + .total { margin-top: 4px; padding-top: 0; border-top: 0; }
.tax-notes { margin-top: 14px; }
.payment { margin-top: 36px; break-inside: avoid; }
.payment h2 { margin-bottom: 4px; }
footer .file { font-size: 10px; }
@media print {
  .part { margin-top: 30px; }
}
@media screen and (max-width: 700px) {
  .item { grid-column: 1 / 3; }
}
"""
