//! Requests to a gateway on this machine. The first byte of an input says which path its body is
//! for; or it is what a client sends, from the first byte of the request line on.
//!
//! Everything between the socket and the engine is in it: the answer of the engine is empty.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use concord_gateway::{
    EngineAnswer, GatewayOptions, InferenceEngine, Refused, RunningGateway, SamplingDefaults,
    Served, start,
};
use concord_proto::serving::{
    Deployment, Finish, Generation, PoolView, ServedPrecision, TokenLogprob, Update, Usage,
};
use concord_proto::{Digest, Domain, F32Bits, Signed};
use concord_text::{ChatTemplate, TextTokenizer};
use futures_util::future::{BoxFuture, ready};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::{fixtures, seeds};

/// The paths with a body, and bodies that are right.
const PATHS: [(&str, &[&str]); 7] = [
    (
        "/v1/chat/completions",
        &[
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content":
            [{"type": "text", "text": "hi"}]}], "temperature": 0.5, "top_p": 0.9, "top_k": -1,
            "n": 2, "seed": -1, "max_completion_tokens": 3, "stop": ["a", "x"], "logprobs": true,
            "top_logprobs": 2, "logit_bias": {"3": 1}, "user": "u", "model": "tuned"}"#,
            r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content":
            null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f",
            "arguments": "{\"a\": 1}"}}]}, {"role": "tool", "tool_call_id": "c", "content": "1"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type":
            "object", "properties": {"a": {"type": "integer"}}}}}], "tool_choice": "required",
            "stream": true, "stream_options": {"include_usage": true}}"#,
            r#"{"messages": [{"role": "user", "content": "hi"}], "response_format": {"type":
            "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties":
            {"a": {"enum": [1, "b"]}}, "required": ["a"]}}}, "chat_template_kwargs": {"x": 1}}"#,
        ],
    ),
    (
        "/v1/completions",
        &[
            r#"{"prompt": "hi", "echo": true, "logprobs": 2, "max_tokens": 0, "suffix": null}"#,
            r#"{"prompt": [[1, 2], [3]], "stream": true, "frequency_penalty": 0.1}"#,
        ],
    ),
    ("/v1/embeddings", &[r#"{"input": "hi"}"#]),
    (
        "/tokenize",
        &[
            r#"{"prompt": "<s>caf\u00e9", "add_special_tokens": true}"#,
            r#"{"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": false}"#,
        ],
    ),
    ("/detokenize", &[r#"{"tokens": [1, 2, 256]}"#]),
    (
        "/v1/load_lora_adapter",
        &[r#"{"lora_name": "n", "lora_path": "p"}"#],
    ),
    ("/v1/unload_lora_adapter", &[r#"{"lora_name": "n"}"#]),
];

/// Whole requests.
const WHOLE: [&str; 2] = [
    "GET /v1/models/tuned HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a\r\n\r\n",
    "POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
     Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n\
     9\r\n{\"prompt\"\r\n6\r\n: \"a\"}\r\n0\r\n\r\n",
];

/// Writes the first inputs.
pub fn write_seeds() {
    let bodies = PATHS.iter().zip(0_u8..).flat_map(|((_, bodies), path)| {
        bodies
            .iter()
            .map(move |body| [&[path], body.as_bytes()].concat())
    });
    let whole = PATHS.len() as u8;
    let wholes = WHOLE
        .iter()
        .map(|request| [&[whole], request.as_bytes()].concat());
    seeds::write("request", bodies.chain(wholes));
}

/// An engine that answers with nothing.
struct Silent;

impl InferenceEngine for Silent {
    fn submit(&self, generation: Generation) -> Result<EngineAnswer, Refused> {
        let (updates, received) = mpsc::channel(2);
        let (control, mut controls) = mpsc::channel(8);
        let scored = |token: &u32| TokenLogprob {
            token: *token,
            logprob: F32Bits::from(0.0),
            top: Vec::new(),
        };
        let prompt = &generation.spec.prompt;
        let of_prompt = generation
            .prompt_logprobs
            .map(|_| prompt.iter().skip(1).map(scored));
        let end = Update::Finished {
            finish: Finish::Stop,
            usage: Usage::default(),
        };
        for update in of_prompt
            .map(|all| Update::Prompt(all.collect()))
            .into_iter()
            .chain([end])
        {
            updates.try_send(update).expect("two find room");
        }
        tokio::spawn(async move { while controls.recv().await.is_some() {} });
        Ok(EngineAnswer {
            updates: received,
            control,
        })
    }

    fn view(&self) -> PoolView {
        PoolView {
            ready: true,
            ..PoolView::default()
        }
    }

    fn receipts(&self, _: String) -> BoxFuture<'static, Result<Vec<Signed>, String>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn add_adapter(&self, _: PathBuf) -> BoxFuture<'static, Result<Digest, String>> {
        Box::pin(ready(Ok(digest("adapter"))))
    }

    fn remove_adapter(&self, _: Digest) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(ready(Ok(())))
    }
}

fn digest(label: &str) -> Digest {
    Digest::of(Domain::Blob, label.as_bytes())
}

fn served() -> Served {
    let folder = tempfile::tempdir().expect("a folder can be made");
    fixtures::write_tokenizer(folder.path());
    let tokenizer = TextTokenizer::open(folder.path()).expect("a right tokenizer");
    // It knows tools.
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% for call in \
                    m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% \
                    endfor %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}";
    Served {
        name: "tiny/model".to_string(),
        deployment: Deployment {
            arithmetic: 1,
            model: digest("model"),
            tokenizer: digest("tokenizer"),
            layers: 2,
            vocab: 260,
            positions: 2_000,
            precision: ServedPrecision::of(8),
        },
        tokenizer: Arc::new(tokenizer),
        template: Some(ChatTemplate::from_source(template).expect("a right template")),
        stop_tokens: vec![257],
        adapters: vec![("tuned".to_string(), digest("tuned"))],
        created: 1_700_000_000,
        defaults: SamplingDefaults::default(),
    }
}

/// A gateway, and a connection to it that stays open.
struct Client {
    addr: SocketAddr,
    stream: Option<TcpStream>,
    _running: (Runtime, RunningGateway),
}

impl Client {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let options = GatewayOptions::new(([127, 0, 0, 1], 0).into());
        let gateway = runtime.block_on(start(served(), Arc::new(Silent), options));
        let gateway = gateway.expect("a gateway");
        Self {
            addr: gateway.addr,
            stream: None,
            _running: (runtime, gateway),
        }
    }

    fn connected(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        stream
            .set_read_timeout(Some(Duration::from_secs(15)))
            .expect("a socket");
        stream
    }

    /// The status that a body is answered with.
    fn post(&mut self, path: &str, body: &[u8]) -> u16 {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let mut stream = self.stream.take().unwrap_or_else(|| self.connected());
        stream.write_all(&request).expect("it takes the request");
        let (status, stays_open) = answer(&mut stream).expect("it answers");
        self.stream = stays_open.then_some(stream);
        status
    }

    /// Sends bytes, and waits until the gateway has closed the connection.
    fn send(&self, bytes: &[u8]) {
        let mut stream = self.connected();
        // It may close while it is still sent to.
        let sent = stream
            .write_all(bytes)
            .and_then(|()| stream.shutdown(Shutdown::Write));
        if sent.is_ok() {
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    }
}

/// The status of an answer, and whether the connection stays open behind it.
fn answer(stream: &mut TcpStream) -> io::Result<(u16, bool)> {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = match stream.read(&mut piece) {
            // By the alarm of libFuzzer.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.extend_from_slice(&piece[..count]);
        let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let (head, body) = text.split_at(end + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        let length = head.split_once("\r\ncontent-length: ");
        let length = length.and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
        let is_whole = match length {
            Some(length) => body.len() >= length,
            None => body.ends_with(b"0\r\n\r\n"),
        };
        if is_whole {
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            return Ok((status.unwrap_or(0), !head.contains("\r\nconnection: close")));
        }
    }
}

/// Sends an input. A body gets an answer that is no fault of the gateway.
///
/// # Panics
/// Where it gets another one.
pub fn read(input: &[u8]) {
    thread_local! {
        static CLIENT: RefCell<Option<Client>> = const { RefCell::new(None) };
    }
    let Some((which, rest)) = input.split_first() else {
        return;
    };
    CLIENT.with_borrow_mut(|client| {
        let client = client.get_or_insert_with(Client::new);
        match PATHS.get(usize::from(*which) % (PATHS.len() + 1)) {
            None => client.send(rest),
            Some((path, _)) => {
                let status = client.post(path, rest);
                assert!([200, 400, 404].contains(&status), "{path}: {status}");
            }
        }
    });
}
