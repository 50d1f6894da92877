//! The page, in a browser without a screen.
//!
//! It needs chromedriver and Chromium on the PATH (Debian: chromium, chromium-driver), and says that it
//! is skipped where they are missing.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{PATIENCE, Server, get, post, tiny};

/// A browser, driven by the WebDriver protocol (W3C).
struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one; nothing where there is none.
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

    /// What a script gives.
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

    /// What the console says that is an error.
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
    let asked = json!({ "messages": [{ "role": "user", "content": "Once upon a time" }],
        "temperature": 0, "max_tokens": 40 });
    let answer = server.post("/v1/chat/completions", &asked);
    assert_eq!(shown, answer["choices"][0]["message"]["content"]);
    // The receipt behind the link is there.
    let link = browser.run("return document.querySelector('.assistant a').href");
    let start = Instant::now();
    while get(link.as_str().unwrap())["format"] != "concord.receipt.v1" {
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
