"""The night's candidates as a contact sheet: one file, sortable and filterable, thousands of rows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..triplet import QualityFlag, Triplet
from .stamps import data_uri, strip

__all__ = ["GalleryWriter"]

STRIP_SIDE = 63
"""Pixels of each stamp in the sheet."""

# The page keeps its candidates as data and draws only the rows in sight, so that ten thousand scroll
# as easily as ten.
_STYLE = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;font:15px/1.4 system-ui,sans-serif;color:#1b1f24;background:#fff}
header{position:sticky;top:0;background:#fff;border-bottom:1px solid #d0d7de;padding:.5rem .8rem;z-index:1}
h1{font-size:1.1rem;margin:0 0 .4rem}
form{display:flex;flex-wrap:wrap;gap:.4rem .9rem;align-items:center}
label{white-space:nowrap}select,input{font:inherit;padding:.2rem;max-width:9rem}
#count{margin:.3rem 0 0;color:#3d444d}
#sheet{position:relative;margin:0 .8rem}
figure{position:absolute;margin:0;padding:4px 6px;overflow:hidden}
figure:focus{outline:3px solid #0b4f8a;outline-offset:-2px}
img{width:100%;height:auto;aspect-ratio:193/63;image-rendering:pixelated;display:block}
figcaption{font-size:13px;line-height:18px;padding-top:2px}
figcaption b,figcaption span{display:block;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.flag{color:#8a3b00}
@media (max-width:40rem){header{position:static}}
"""

_SCRIPT = """
const C=K.classes,$=i=>document.getElementById(i),sheet=$('sheet');
const P=r=>r[2],best=r=>P(r)[0]===null?-1:P(r).indexOf(Math.max(...P(r)));
let view=[],columns=1,width=0,H=0,at=0;
function option(s,v,t){const o=document.createElement('option');o.value=v;o.textContent=t;s.append(o)}
C.forEach((c,i)=>{option($('sort'),i,'P('+c+')');option($('label'),i,c)});
K.flags.forEach(([n,b])=>{if(R.some(r=>r[3]&b))option($('flag'),b,n.toLowerCase().replaceAll('_',' '))});
option($('label'),-1,'not scored');
option($('sort'),'id','name');option($('sort'),'order','order of the night');
$('sort').value=C.length-1;
function choose(){
 const s=$('sort').value,l=$('label').value,f=$('flag').value,q=$('find').value.toLowerCase(),
  lo=+$('low').value||0,k=isNaN(+s)?C.length-1:+s,up=$('up').checked?1:-1;
 view=R.filter(r=>(l===''||best(r)===+l)&&(f===''||(f==='0'?!r[3]:r[3]&+f))&&
  (!q||(r[0]+' '+r[1]).toLowerCase().includes(q))&&(lo<=0||P(r)[k]>=lo));
 if(s==='id')view.sort((a,b)=>-up*a[0].localeCompare(b[0],undefined,{numeric:true}));
 else if(s!=='order')view.sort((a,b)=>(P(a)[0]===null)-(P(b)[0]===null)||up*(P(a)[k]-P(b)[k]));
 $('count').textContent=view.length+' of '+R.length+
  ' candidates: science, reference, difference. Arrow keys move.';
 at=0;scrollTo(0,0);layout()}
const shown=new Map();
function layout(){const w=sheet.clientWidth;
 columns=Math.max(1,Math.floor(w/+$('size').value));width=w/columns;
 H=Math.ceil((width-12)*63/193)+72;
 sheet.style.height=Math.ceil(view.length/columns)*H+'px';
 for(const e of shown.values())e.remove();shown.clear();draw()}
function draw(){const top=scrollY-sheet.offsetTop,a=Math.max(0,Math.floor(top/H)-3)*columns,
  z=Math.min(view.length,(Math.ceil((top+innerHeight)/H)+3)*columns);
 for(const[i,e]of shown)if(i<a||i>=z){e.remove();shown.delete(i)}
 let last=null;
 for(let i=a;i<z;i++){let e=shown.get(i);
  if(!e){e=card(view[i],i);shown.set(i,e);if(last)last.after(e);else sheet.prepend(e)}last=e}}
function go(i){at=Math.max(0,Math.min(i,view.length-1));
 const y=sheet.offsetTop+Math.floor(at/columns)*H,head=document.querySelector('header').offsetHeight;
 if(y-head<scrollY)scrollTo(0,y-head);else if(y+H>scrollY+innerHeight)scrollTo(0,y+H-innerHeight);
 draw();for(const[k,e]of shown)e.tabIndex=k===at?0:-1;shown.get(at)?.focus({preventScroll:true})}
sheet.addEventListener('keydown',e=>{const page=columns*Math.max(1,Math.floor(innerHeight/H)-1),
  by={ArrowLeft:-1,ArrowRight:1,ArrowUp:-columns,ArrowDown:columns,PageUp:-page,PageDown:page,
   Home:-view.length,End:view.length}[e.key];
 if(by&&!e.ctrlKey&&!e.metaKey&&!e.altKey){e.preventDefault();go(at+by)}});
sheet.addEventListener('focusin',e=>{for(const[k,f]of shown)if(f===e.target)at=k});
function card(r,i){const e=document.createElement('figure'),m=document.createElement('img'),
  t=document.createElement('figcaption'),n=document.createElement('b'),p=document.createElement('span');
 e.style.cssText='left:'+(i%columns)*width+'px;top:'+Math.floor(i/columns)*H+'px;width:'+width+'px';
 e.tabIndex=i===at?0:-1;e.setAttribute('role','listitem');
 e.setAttribute('aria-setsize',view.length);e.setAttribute('aria-posinset',i+1);
 m.src=r[4];m.alt='science, reference and difference stamps of '+r[0];m.width=193;m.height=63;
 n.textContent=r[0];n.title=r[1]?r[0]+' in '+r[1]:r[0];
 p.textContent=P(r)[0]===null?'not scored':
  C.map((c,k)=>[c,P(r)[k]]).slice(C.length===2?1:0).sort((a,b)=>b[1]-a[1])
   .map(([c,v])=>c+' '+v.toFixed(3)).join(' · ');
 p.title=p.textContent;
 t.append(n,p);
 if(r[3]){const f=document.createElement('span');f.className='flag';
  f.textContent=K.flags.filter(([,b])=>r[3]&b).map(([x])=>x.toLowerCase().replaceAll('_',' ')).join(', ');
  f.title=f.textContent;t.append(f)}
 e.append(m,t);return e}
addEventListener('scroll',()=>requestAnimationFrame(draw),{passive:true});
addEventListener('resize',layout);$('size').addEventListener('input',layout);$('tools').addEventListener('input',e=>e.target===$('size')||choose());
$('tools').addEventListener('submit',e=>e.preventDefault());choose();
"""

_TOOLS = """<form id="tools" aria-label="Sort and filter">
<label>Sort by <select id="sort"></select></label>
<label><input type="checkbox" id="up"> lowest first</label>
<label>Judged <select id="label"><option value="">any</option></select></label>
<label>Flag <select id="flag"><option value="">any</option><option value="0">none</option></select></label>
<label>P at least <input id="low" type="number" min="0" max="1" step="0.01" value="0"></label>
<label>Name <input id="find" type="search"></label>
<label>Size <select id="size"><option value="200">small</option><option value="290" selected>medium</option>
<option value="440">large</option></select></label></form>"""


class GalleryWriter:
    """Writes the sheet candidate by candidate, with constant memory; a context manager.

    Parameters
    ----------
    path : path
        ``.html``; it appears when the writer closes without an error.
    classes : sequence of str
    title : str
    """

    def __init__(self, path: str | os.PathLike[str], classes: Sequence[str], title: str = "Candidates"):
        self.path, self.classes, self.title = Path(path), tuple(classes), title
        if self.path.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"a gallery is a web page: {str(path)!r} must end in .html")
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._stream: IO[str] = open(self._temporary, "w", encoding="utf-8")  # noqa: SIM115
        self._stream.write(
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head>'
            f"<body><header><h1>{escape(title)}</h1>{_TOOLS}"
            '<p id="count" role="status"></p></header><main>'
            '<div id="sheet" role="list" aria-label="Candidates"></div></main>\n<script>const R=[\n'
        )

    def add(
        self,
        triplets: Sequence[Triplet],
        probabilities: npt.NDArray[np.float32],
        quality: npt.NDArray[np.uint16],
    ) -> None:
        """Append candidates.

        Parameters
        ----------
        triplets : sequence of Triplet, length N
        probabilities : ndarray of float32, shape (N, K)
            NaN where there is none.
        quality : ndarray of uint16, shape (N,)
            `QualityFlag` bits.
        """
        for triplet, row, bits in zip(triplets, probabilities.tolist(), quality.tolist(), strict=True):
            p = [None if value != value else round(value, 4) for value in row]
            record = [triplet.id, triplet.source, p, bits, data_uri(strip(triplet, STRIP_SIDE))]
            self._stream.write(_script_safe(record) + ",\n")

    def close(self) -> None:
        """Finish the page and put it in its place."""
        flags = [[flag.name, flag.value] for flag in QualityFlag if flag.value and flag.name]
        facts = _script_safe({"classes": self.classes, "flags": flags})
        self._stream.write(f"];\nconst K={facts};{_SCRIPT}</script></body></html>\n")
        self._stream.close()
        os.replace(self._temporary, self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stream.close()
            self._temporary.unlink(missing_ok=True)


def _script_safe(value: object) -> str:
    """JSON that cannot end the script it stands in, whatever a candidate is called."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
