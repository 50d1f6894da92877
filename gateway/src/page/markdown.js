"use strict";

// Markdown, as models write it: headings, lists, quotes, tables, code, emphasis, links. Elements are
// made one by one and get their text as text: nothing in an answer is ever read as HTML. What is no
// Markdown, or not yet, because the answer is still coming, stays as it is.

const markdown = (() => {
  const DEPTH_MAX = 8;
  const LINK = /^(https?:\/\/|mailto:)/i;

  function node(tag, ...children) {
    const made = document.createElement(tag);
    made.append(...children);
    return made;
  }

  // ---- within a line

  const RUNS = [
    // A backslash takes a mark its meaning.
    [/^\\([\\`*_{}[\]()#+\-.!|~<>])/, (found) => found[1]],
    [/^(`+)(?!`)([\s\S]*?[^`])\1(?!`)/, (found) => node("code", found[2].replace(/^ (.+) $/s, "$1"))],
    [/^\*\*(?=\S)([\s\S]*?\S)\*\*(?!\*)/, (found, deep) => node("strong", ...inline(found[1], deep))],
    [/^__(?=\S)([\s\S]*?\S)__(?![_\w])/, (found, deep) => node("strong", ...inline(found[1], deep))],
    [/^~~(?=\S)([\s\S]*?\S)~~/, (found, deep) => node("del", ...inline(found[1], deep))],
    [/^\*(?=[^\s*])([\s\S]*?[^\s*])\*(?!\*)/, (found, deep) => node("em", ...inline(found[1], deep))],
    [/^_(?=[^\s_])([\s\S]*?[^\s_])_(?![_\w])/, (found, deep) => node("em", ...inline(found[1], deep))],
    [/^\[([^\]\n]+)\]\(<?([^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+"[^"\n]*")?\)/, link],
    [/^<(https?:\/\/[^\s<>]+)>/, (found, deep) => link([found[0], found[1], found[1]], deep)],
  ];

  function link(found, deep) {
    // Other schemes, such as javascript:, stay text.
    if (!LINK.test(found[2])) return found[0];
    const made = node("a", ...inline(found[1], deep));
    made.href = found[2];
    made.target = "_blank";
    made.rel = "noopener noreferrer nofollow";
    return made;
  }

  // The nodes of a text within a line. A mark within a word, as in snake_case, is none.
  function inline(text, deep = 0) {
    const nodes = [];
    let plain = "", at = 0;
    const next = /[\\`*_~[<]/g;
    while (at < text.length) {
      next.lastIndex = at;
      const mark = next.exec(text);
      if (!mark || deep >= DEPTH_MAX) break;
      plain += text.slice(at, mark.index);
      at = mark.index;
      const rest = text.slice(at, at + 4000);
      const within = mark[0] === "_" && /\w$/.test(plain);
      let taken = null;
      if (!within) {
        for (const [pattern, make] of RUNS) {
          const found = pattern.exec(rest);
          if (found) { taken = [found[0].length, make(found, deep + 1)]; break; }
        }
      }
      if (!taken) {
        // All marks of a run at once: the second of two is no beginning.
        const run = /^(.)\1*/s.exec(text.slice(at))[0];
        plain += run;
        at += run.length;
        continue;
      }
      at += taken[0];
      if (typeof taken[1] === "string") plain += taken[1];
      else {
        if (plain) nodes.push(plain);
        plain = "";
        nodes.push(taken[1]);
      }
    }
    plain += text.slice(at);
    if (plain) nodes.push(plain);
    return nodes;
  }

  // ---- blocks

  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
  const HEADING = /^ {0,3}(#{1,6})\s+(.*?)(?:\s+#+)?\s*$/;
  const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
  const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|$)/;
  const QUOTE = /^ {0,3}> ?(.*)$/;
  const DIVIDER = /^ *\|? *:?-+:? *(\| *:?-+:? *)*\|? *$/;

  const isBlank = (line) => /^\s*$/.test(line);
  const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line)
    || QUOTE.test(line) || ITEM.test(line);
  const indent = (line) => /^ */.exec(line)[0].length;

  function cells(line) {
    const kept = line.trim().replace(/\\\|/g, "\u0000").replace(/^\|/, "").replace(/\|$/, "");
    return kept.split("|").map((cell) => cell.trim().replace(/\u0000/g, "|"));
  }

  function code(lines, at) {
    const [, fence, language] = FENCE.exec(lines[at]);
    const inner = [];
    for (at += 1; at < lines.length; at += 1) {
      const end = FENCE.exec(lines[at]);
      if (end && end[1][0] === fence[0] && end[1].length >= fence.length && !end[2].trim()) break;
      inner.push(lines[at]);
    }
    const made = node("code", inner.join("\n"));
    const name = language.trim().split(/\s/)[0];
    if (name) made.dataset.language = name;
    return [node("pre", made), at + 1];
  }

  function list(lines, at, deep) {
    const first = ITEM.exec(lines[at]);
    const isOrdered = /\d/.test(first[2]);
    const made = node(isOrdered ? "ol" : "ul");
    if (isOrdered) made.start = parseInt(first[2], 10);
    const base = first[1].length;
    while (at < lines.length) {
      const item = ITEM.exec(lines[at]);
      if (!item || RULE.test(lines[at]) || /\d/.test(item[2]) !== isOrdered) break;
      if (item[1].length < base || item[1].length > base + 3) break;
      const inner = [item[3] || ""];
      const width = item[1].length + item[2].length + 1;
      let isLoose = false;
      for (at += 1; at < lines.length; at += 1) {
        const line = lines[at];
        if (isBlank(line)) {
          // A blank line ends the item, unless what follows belongs to it.
          const next = lines[at + 1];
          if (next === undefined || indent(next) < Math.min(width, base + 2)) break;
          inner.push("");
          isLoose = true;
        } else if (indent(line) >= Math.min(width, base + 2)) {
          inner.push(line.slice(Math.min(indent(line), width)));
        } else if (begins(line)) break;
        else inner.push(line.trim());
      }
      const blocks = parse(inner, deep + 1);
      const entry = node("li");
      for (const block of blocks) {
        // The text of a short item is no paragraph.
        if (block.tagName === "P" && !isLoose) entry.append(...block.childNodes);
        else entry.append(block);
      }
      made.append(entry);
      while (at + 1 < lines.length && isBlank(lines[at]) && ITEM.test(lines[at + 1])) at += 1;
    }
    return [made, at];
  }

  function table(lines, at) {
    const heads = cells(lines[at]);
    const row = (tag, list) => node("tr", ...heads.map((_, index) => node(tag, ...inline(list[index] || ""))));
    const body = node("tbody");
    const made = node("table", node("thead", row("th", heads)), body);
    for (at += 2; at < lines.length && lines[at].includes("|") && !isBlank(lines[at]); at += 1) {
      body.append(row("td", cells(lines[at])));
    }
    return [made, at];
  }

  function isTable(lines, at) {
    return lines[at].includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1])
      && lines[at + 1].includes("-") && cells(lines[at]).length === cells(lines[at + 1]).length
      && (lines[at + 1].includes("|") || cells(lines[at]).length === 1);
  }

  // The elements of some lines.
  function parse(lines, deep = 0) {
    const blocks = [];
    let at = 0;
    while (at < lines.length) {
      const line = lines[at];
      let block;
      if (isBlank(line)) { at += 1; continue; }
      if (deep >= DEPTH_MAX) {
        blocks.push(node("p", lines.slice(at).join("\n")));
        break;
      }
      const heading = HEADING.exec(line);
      if (FENCE.test(line)) [block, at] = code(lines, at);
      else if (heading) {
        block = node("h" + Math.min(6, heading[1].length + 2), ...inline(heading[2]));
        at += 1;
      } else if (RULE.test(line)) {
        block = node("hr");
        at += 1;
      } else if (QUOTE.test(line)) {
        const inner = [];
        for (; at < lines.length && QUOTE.test(lines[at]); at += 1) inner.push(QUOTE.exec(lines[at])[1]);
        block = node("blockquote", ...parse(inner, deep + 1));
      } else if (ITEM.test(line)) [block, at] = list(lines, at, deep);
      else if (isTable(lines, at)) [block, at] = table(lines, at);
      else {
        const inner = [line];
        for (at += 1; at < lines.length && !isBlank(lines[at]) && !begins(lines[at]) && !isTable(lines, at); at += 1) {
          inner.push(lines[at]);
        }
        block = node("p", ...inline(inner.join("\n")));
      }
      blocks.push(block);
    }
    return blocks;
  }

  return (text) => parse(text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"));
})();
