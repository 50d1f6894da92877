//! The page, in a browser without a screen.
//!
//! It needs chromedriver and Chromium on the PATH (Debian: chromium, chromium-driver), and says
//! that it is skipped where they are missing.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::pool::run;
use crate::server::{PATIENCE, Server, get, post, status, tiny};

/// A browser, driven by the WebDriver protocol (W3C).
struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one; nothing if there is no chromedriver.
    fn start() -> Option<Self> {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(driver) = driver else {
            println!("skipped: no chromedriver");
            return None;
        };
        let base = format!("http://127.0.0.1:{port}");
        let start = Instant::now();
        while ureq::get(format!("{base}/status")).call().is_err() {
            assert!(start.elapsed() < PATIENCE, "chromedriver does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        let profile = tempfile::tempdir().unwrap();
        let folder = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &folder,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let (status, made) = post(&format!("{base}/session"), &wanted);
        assert_eq!(status, 200, "{made}");
        let id = made["value"]["sessionId"].as_str().unwrap();
        Some(Self {
            driver,
            session: format!("{base}/session/{id}"),
            _profile: profile,
        })
    }

    fn open(&self, url: &str) {
        let (status, answer) = post(&format!("{}/url", self.session), &json!({ "url": url }));
        assert_eq!(status, 200, "{answer}");
    }

    /// What a script returns.
    fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        let (status, answer) = post(&format!("{}/execute/sync", self.session), &body);
        assert_eq!(status, 200, "{script}: {answer}");
        answer["value"].clone()
    }

    /// Waits until a script gives true.
    fn until(&self, script: &str) {
        let start = Instant::now();
        while self.run(script) != true {
            let text = self.run("return document.body.innerText");
            assert!(start.elapsed() < PATIENCE, "never: {script}\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The errors in the console.
    fn errors(&self) -> Vec<Value> {
        let wanted = json!({ "type": "browser" });
        let (_, log) = post(&format!("{}/se/log", self.session), &wanted);
        let lines = log["value"].as_array().cloned().unwrap_or_default();
        lines
            .into_iter()
            .filter(|line| line["level"] == "SEVERE")
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn the_page_shows_the_pool_and_answers() {
    let Some((model, adapter)) = tiny() else {
        return;
    };
    let Some(browser) = Browser::start() else {
        return;
    };
    let poet = format!("poet={}", adapter.display());
    let mut server = Server::with_stages(&model, 2, &["--adapter", &poet]);
    browser.open(&server.url);
    browser.until("return document.getElementById('state').textContent === 'ready'");
    browser.until("return document.querySelectorAll('.stage').length === 2");
    browser.until("return document.querySelectorAll('#workers tr').length === 2");
    browser.until("return document.getElementById('models').options.length === 2");
    // A question, with Enter, and its answer.
    browser.run(
        "document.getElementById('temperature').value = '0';
         document.getElementById('max_tokens').value = '40';
         const prompt = document.getElementById('prompt');
         prompt.value = 'Once upon a time';
         prompt.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', cancelable: true }));",
    );
    browser.until("return document.querySelector('.assistant a') !== null");
    let shown = browser.run("return document.querySelector('.assistant .body').textContent");
    let words = |text: &Value| {
        text.as_str()
            .unwrap()
            .split_whitespace()
            .collect::<String>()
    };
    let asked = json!({ "messages": [{ "role": "user", "content": "Once upon a time" }],
        "temperature": 0, "max_tokens": 40 });
    let answer = server.post("/v1/chat/completions", &asked);
    // Paragraphs are elements: what is between them is no text.
    let content = &answer["choices"][0]["message"]["content"];
    assert_eq!(words(&shown), words(content));
    // The receipt behind the link is there.
    let link = browser.run("return document.querySelector('.assistant a').href");
    let start = Instant::now();
    while get(link.as_str().unwrap())["format"] != "concord.receipt.v2" {
        assert!(start.elapsed() < PATIENCE, "no receipt at {link}");
        std::thread::sleep(Duration::from_millis(50));
    }
    browser.until("return Number(document.getElementById('rate').textContent) >= 0");
    // Markup in a text stays text.
    browser.run(
        "document.getElementById('prompt').value = '<img src=x onerror=\"document.title=1\">';
         document.getElementById('ask').requestSubmit();",
    );
    browser.until("return document.querySelectorAll('.assistant a').length === 2");
    assert_eq!(
        browser.run("return document.querySelectorAll('#messages img').length"),
        0
    );
    // A worker is lost: the other one takes over all layers, and the page says so.
    let mut lost = server.workers.remove(0);
    lost.kill();
    browser.until("return document.getElementById('failovers').textContent === '1'");
    browser.until("return document.querySelectorAll('.stage').length === 1");
    browser.until("return document.querySelectorAll('#workers tr').length === 1");
    browser.until("return document.getElementById('state').textContent === 'ready'");
    assert_eq!(
        browser.errors(),
        Vec::<Value>::new(),
        "the console has errors"
    );
}

/// With keys, on a short context: no length is asked for that does not fit, and the receipt behind
/// the link comes with the key.
#[test]
fn the_page_works_with_keys() {
    let Some((model, _)) = tiny() else { return };
    let Some(browser) = Browser::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let made = run(&["--json", "key", "ann", "--file", file.to_str().unwrap()]);
    let made: Value = serde_json::from_str(made.stdout.trim()).unwrap();
    let key = made["key"].as_str().unwrap();
    let server = Server::with_stages(&model, 1, &["--api-keys", file.to_str().unwrap()]);
    browser.open(&server.url);
    browser.until("return document.getElementById('state').textContent.includes('API key')");
    browser.run(&format!(
        "const key = document.getElementById('key');
         key.value = '{key}';
         key.dispatchEvent(new Event('change'));"
    ));
    browser.until("return document.getElementById('models').options.length === 1");
    browser.until("return document.getElementById('state').textContent === 'ready'");
    browser.run(
        "window.files = [];
         URL.createObjectURL = (blob) => { window.files.push(blob); return '#'; };
         document.getElementById('temperature').value = '0';
         document.getElementById('prompt').value = 'Once upon a time';
         document.getElementById('ask').requestSubmit();",
    );
    browser.until("return document.querySelector('.assistant a') !== null");
    assert_eq!(
        browser.run("return document.querySelectorAll('.error').length"),
        0
    );
    let link = browser.run("return document.querySelector('.assistant a').href");
    assert_eq!(status(link.as_str().unwrap()), 401);
    browser.run("document.querySelector('.assistant a').click()");
    browser.until("return window.files.length === 1");
    browser.run("window.files[0].text().then((text) => { window.receipt = JSON.parse(text); })");
    browser.until("return window.receipt !== undefined");
    assert_eq!(
        browser.run("return window.receipt.format"),
        "concord.receipt.v2"
    );
}

/// The end of an answer is in sight, unless the reader looks at something else.
#[test]
fn the_page_follows_the_answer_unless_the_reader_scrolled_up() {
    let Some((model, _)) = tiny() else { return };
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::with_stages(&model, 1, &[]);
    browser.open(&server.url);
    browser.until("return document.getElementById('state').textContent === 'ready'");
    let ask = |text: &str, tokens: u32| {
        browser.run(&format!(
            "document.getElementById('temperature').value = '0';
             document.getElementById('max_tokens').value = '{tokens}';
             document.getElementById('prompt').value = '{text}';
             document.getElementById('ask').requestSubmit();"
        ));
    };
    browser.run("document.getElementById('messages').style.maxHeight = '120px'");
    ask("Once upon a time", 120);
    browser.until("return document.querySelectorAll('.assistant a').length === 1");
    browser.until(
        "const m = document.getElementById('messages');
         return m.scrollHeight > m.clientHeight
             && m.scrollTop + m.clientHeight >= m.scrollHeight - 8;",
    );
    // The reader scrolls up at the first word of the next answer.
    browser.run(
        "window.changes = 0;
         const m = document.getElementById('messages');
         new MutationObserver(() => {
             window.changes += 1;
             if (window.changes === 2) m.scrollTop = 0;
         }).observe(m, { childList: true, subtree: true, characterData: true });",
    );
    ask("Then", 230);
    browser.until("return document.querySelectorAll('.assistant a').length === 2");
    assert_eq!(browser.run("return window.changes >= 3"), true);
    assert_eq!(
        browser.run("return document.getElementById('messages').scrollTop"),
        0
    );
}

/// Markdown, and the elements that it becomes.
const MARKDOWN: [(&str, &str); 16] = [
    ("plain", "<p>plain</p>"),
    ("a\n\nb", "<p>a</p><p>b</p>"),
    ("# T\ntext", "<h3>T</h3><p>text</p>"),
    (
        "*a* **b** `c*d*` ~~e~~",
        "<p><em>a</em> <strong>b</strong> <code>c*d*</code> <del>e</del></p>",
    ),
    (
        "snake_case_name 2 * 3 * 4",
        "<p>snake_case_name 2 * 3 * 4</p>",
    ),
    ("**open", "<p>**open</p>"),
    (
        "- a\n- b\n  - c",
        "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
    ),
    ("2. a\n3. b", "<ol start=\"2\"><li>a</li><li>b</li></ol>"),
    ("> q\n> r", "<blockquote><p>q\nr</p></blockquote>"),
    ("---", "<hr>"),
    (
        "```py\nif a < b:\n```",
        "<pre><code data-language=\"py\">if a &lt; b:</code></pre>",
    ),
    ("```\nstill coming", "<pre><code>still coming</code></pre>"),
    (
        "|a|b|\n|-|-|\n|1|2|",
        "<table><thead><tr><th>a</th><th>b</th></tr></thead>\
         <tbody><tr><td>1</td><td>2</td></tr></tbody></table>",
    ),
    (
        "[x](https://a.example/b)",
        "<p><a href=\"https://a.example/b\" target=\"_blank\" \
         rel=\"noopener noreferrer nofollow\">x</a></p>",
    ),
    (
        "[x](javascript:alert(1))",
        "<p>[x](javascript:alert(1))</p>",
    ),
    (
        "<img src=x onerror=alert(1)>",
        "<p>&lt;img src=x onerror=alert(1)&gt;</p>",
    ),
];

/// Pieces that open something and close nothing, and others with which a parser may take long until
/// it knows that they are plain text.
const ENDLESS: [&str; 26] = [
    "[",
    "[a",
    "*",
    "*a ",
    " *a",
    "**a ",
    "**a",
    "_a",
    " _a",
    " __a",
    "~~a ",
    "`",
    "`a ``b ",
    "> ",
    "- ",
    "|",
    "[a](",
    "[a](b \"",
    "\\",
    "<http://a",
    "# a ",
    "~~~a`",
    "a|b\n- -x\n",
    "*a** ",
    "**a* b",
    "\n1. a",
];

#[test]
fn answers_are_shown_as_markdown_and_never_as_html() {
    let Some((model, _)) = tiny() else { return };
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::start(&model, &[]);
    browser.open(&server.url);
    let shown = |text: &str| {
        browser.run(&format!(
            "return markdown({}).map((element) => element.outerHTML).join('')",
            json!(text)
        ))
    };
    for (text, expected) in MARKDOWN {
        assert_eq!(shown(text), expected, "{text:?}");
    }
    // Texts that nest, or repeat, without end are shown soon.
    for piece in ENDLESS {
        let start = Instant::now();
        shown(&piece.repeat(100_000 / piece.len()));
        assert!(start.elapsed() < Duration::from_secs(5), "{piece:?}");
    }
}
