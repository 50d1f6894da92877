"use strict";

// Markdown as models write it: headings, lists, quotes, tables, code, emphasis, links. Elements are
// created one by one and get their text as text: nothing in an answer is ever parsed as HTML. Text
// that is not Markdown, or not yet because the answer is incomplete, stays as it is.

const markdown = (() => {
  const DEPTH_MAX = 8;
  const LINK = /^(https?:\/\/|mailto:)/i;

  function node(tag, ...children) {
    const made = document.createElement(tag);
    made.append(...children);
    return made;
  }

  // ---- within a line

  // Reading takes time linear in the length of a text, even if many marks open and never close: each
  // kind of closing mark is searched for once, from left to right.

  const ESCAPED = /[\\`*_{}[\]()#+\-.!|~<>]/;
  const URL_IN_BRACKETS = /\(<?([^\s()<>]+(?:\([^\s()]*\)[^\s()<>]*)*)>?(?:\s+"[^"\n]*")?\)/y;
  const URL_ALONE = /<(https?:\/\/[^\s<>]+)>/y;
  const isSpace = (letter) => letter === undefined || /\s/.test(letter);
  const isWord = (letter) => letter !== undefined && /\w/.test(letter);

  // Marks of emphasis: the element, and whether a mark closes, given the letters around it.
  const EMPHASES = {
    "**": ["strong", (before, after) => !isSpace(before) && after !== "*"],
    "__": ["strong", (before, after) => !isSpace(before) && after !== "_" && !isWord(after)],
    "~~": ["del", (before) => !isSpace(before)],
    "*": ["em", (before, after) => !isSpace(before) && before !== "*" && after !== "*"],
    "_": ["em", (before, after) => !isSpace(before) && before !== "_" && after !== "_" && !isWord(after)],
  };

  // Searches a text for a mark; positions must be asked for from left to right.
  function places(text, mark, isOne) {
    let place = -1, from = 0;
    return (least) => {
      while (place !== text.length && place < least) {
        const found = text.indexOf(mark, Math.max(from, least));
        place = found < 0 ? text.length : found;
        from = place + 1;
        if (found >= 0 && isOne && !isOne(text[place - 1], text[place + mark.length])) place = -1;
      }
      return place;
    };
  }

  // The runs of backquotes of a text, by their length.
  function fences(text) {
    const starts = new Map();
    for (const run of text.matchAll(/`+/g)) {
      const length = run[0].length;
      if (!starts.has(length)) starts.set(length, { at: 0, list: [] });
      starts.get(length).list.push(run.index);
    }
    return (length, least) => {
      const known = starts.get(length);
      while (known && known.list[known.at] < least) known.at += 1;
      return known && known.list[known.at];
    };
  }

  function link(text, inner, url, deep) {
    // Other schemes, such as javascript:, stay text.
    if (!LINK.test(url)) return text;
    const made = node("a", ...inline(inner, deep));
    made.href = url;
    made.target = "_blank";
    made.rel = "noopener noreferrer nofollow";
    return made;
  }

  // Returns a function from the position of a mark to the node there and its end, or to null.
  function reader(text, deep) {
    const closes = {};
    for (const mark of Object.keys(EMPHASES)) closes[mark] = places(text, mark, EMPHASES[mark][1]);
    const bracket = places(text, "]"), line = places(text, "\n");
    let fence = null, tried = -1, url = null;

    function emphasis(at, mark) {
      const first = text[at + mark.length];
      if (isSpace(first) || (mark.length === 1 && first === mark)) return null;
      const end = closes[mark](at + mark.length + 1);
      if (end >= text.length) return null;
      const inner = text.slice(at + mark.length, end);
      return [node(EMPHASES[mark][0], ...inline(inner, deep)), end + mark.length];
    }

    function code(at) {
      let length = 1;
      while (text[at + length] === "`") length += 1;
      fence = fence || fences(text);
      const end = fence(length, at + length);
      if (end === undefined) return null;
      return [node("code", text.slice(at + length, end).replace(/^ (.+) $/s, "$1")), end + length];
    }

    function linked(at) {
      const end = bracket(at + 1);
      if (end >= text.length || end === at + 1 || line(at) < end) return null;
      // Many brackets may open before one that closes; what follows that one is read only once.
      if (tried !== end) {
        tried = end;
        URL_IN_BRACKETS.lastIndex = end + 1;
        url = URL_IN_BRACKETS.exec(text);
      }
      if (!url) return null;
      const after = end + 1 + url[0].length;
      return [link(text.slice(at, after), text.slice(at + 1, end), url[1], deep), after];
    }

    function address(at) {
      URL_ALONE.lastIndex = at;
      const found = URL_ALONE.exec(text);
      return found && [link(found[0], found[1], found[1], deep), at + found[0].length];
    }

    return (at) => {
      const mark = text[at];
      switch (mark) {
        case "\\": return text[at + 1] && ESCAPED.test(text[at + 1]) ? [text[at + 1], at + 2] : null;
        case "`": return code(at);
        case "[": return linked(at);
        case "<": return address(at);
        default: {
          // An underscore within a word, as in snake_case, is not a mark.
          if (mark === "_" && at > 0 && isWord(text[at - 1])) return null;
          const double = text[at + 1] === mark ? emphasis(at, mark + mark) : null;
          return double || (mark === "~" ? null : emphasis(at, mark));
        }
      }
    };
  }

  // The nodes of a text within a line.
  function inline(text, deep = 0) {
    const nodes = [];
    let plain = "", at = 0;
    const next = /[\\`*_~[<]/g;
    const read = deep < DEPTH_MAX ? reader(text, deep + 1) : () => null;
    while (at < text.length) {
      next.lastIndex = at;
      const mark = next.exec(text);
      if (!mark || deep >= DEPTH_MAX) break;
      plain += text.slice(at, mark.index);
      at = mark.index;
      const taken = read(at);
      if (!taken) {
        // The whole run of marks is text: its second mark must not open anything.
        const start = at;
        while (text[at] === text[start]) at += 1;
        plain += text.slice(start, at);
        continue;
      }
      at = taken[1];
      if (typeof taken[0] === "string") plain += taken[0];
      else {
        if (plain) nodes.push(plain);
        plain = "";
        nodes.push(taken[0]);
      }
    }
    plain += text.slice(at);
    if (plain) nodes.push(plain);
    return nodes;
  }

  // ---- blocks

  const FENCE = /^ {0,3}(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
  const HEADING = /^ {0,3}(#{1,6})\s(.*)$/;
  const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
  const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +(.*)|$)/;
  const QUOTE = /^ {0,3}> ?(.*)$/;
  const DIVIDER_CELL = /^:?-+:?$/;

  const isBlank = (line) => line.trim() === "";
  const isDivider = (line) => cells(line).every((cell) => DIVIDER_CELL.test(cell));
  const begins = (line) => FENCE.test(line) || HEADING.test(line) || RULE.test(line)
    || QUOTE.test(line) || ITEM.test(line);
  const indent = (line) => /^ */.exec(line)[0].length;

  function cells(line) {
    const kept = line.trim().replace(/\\\|/g, "\u0000").replace(/^\|/, "").replace(/\|$/, "");
    return kept.split("|").map((cell) => cell.trim().replace(/\u0000/g, "|"));
  }

  // The text of a heading, without hashes at its end.
  function title(text) {
    const whole = text.trim();
    let end = whole.length;
    while (whole[end - 1] === "#") end -= 1;
    return end === 0 || isSpace(whole[end - 1]) ? whole.slice(0, end).trim() : whole;
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
        // The text of a tight list item is not wrapped in a paragraph.
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
    return lines[at].includes("|") && at + 1 < lines.length && isDivider(lines[at + 1])
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
        block = node("h" + Math.min(6, heading[1].length + 2), ...inline(title(heading[2])));
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
