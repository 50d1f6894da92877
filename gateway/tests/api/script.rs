//! An engine that answers by a script, and records what it was asked.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use concord_gateway::{EngineAnswer, InferenceEngine, Refused};
use concord_proto::serving::{
    BatchedReceipt, Control, Finish, Generation, PoolView, TokenLogprob, Update, Usage,
};
use concord_proto::{Digest, Domain, F32Bits};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::stand::{EOS, ids};

/// The name under which no receipt can be read.
pub const BROKEN_RECEIPT: &str = "cmpl-00000000000000000000000000000000";

/// The course of every generation.
#[derive(Clone, Debug)]
pub struct Script {
    /// Before the first token.
    pub before: Vec<Update>,
    pub tokens: Vec<u32>,
    /// Before each token.
    pub pause: Duration,
    /// After the tokens, unless a stop token or `max_tokens` came first.
    pub end: End,
    /// Refuse all.
    pub refuse: Option<Refused>,
}

/// How an answer ends after its tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// By itself.
    Finish,
    /// A stage is lost for good.
    Fail { retry: bool },
    /// The engine goes away.
    Vanish,
    /// Never.
    Wait,
}

impl Script {
    /// A text and the end of it.
    pub fn text(text: &str) -> Self {
        let mut tokens = ids(text);
        tokens.push(EOS);
        Self {
            before: Vec::new(),
            tokens,
            pause: Duration::ZERO,
            end: End::Finish,
            refuse: None,
        }
    }

    /// A text with another end.
    pub fn cut(text: &str, end: End) -> Self {
        Self {
            tokens: ids(text),
            end,
            ..Self::text("")
        }
    }
}

/// The engine.
pub struct Scripted {
    script: Script,
    pub view: Mutex<PoolView>,
    pub receipts: Mutex<Vec<BatchedReceipt>>,
    /// All that was asked.
    pub asked: Mutex<Vec<Generation>>,
    /// The generations whose texts were closed, with the digests of the texts.
    pub closed: Arc<Mutex<Vec<(String, Digest, Finish)>>>,
    /// How many answers were cancelled.
    pub cancelled: Arc<AtomicU32>,
    /// Folders of adapters that were loaded, and adapters that were unloaded.
    pub loaded: Mutex<Vec<PathBuf>>,
    pub unloaded: Mutex<Vec<Digest>>,
}

impl Scripted {
    pub fn new(script: Script) -> Self {
        Self {
            script,
            view: Mutex::default(),
            receipts: Mutex::default(),
            asked: Mutex::default(),
            closed: Arc::default(),
            cancelled: Arc::default(),
            loaded: Mutex::default(),
            unloaded: Mutex::default(),
        }
    }

    /// The only generation so far.
    pub fn only(&self) -> Generation {
        let asked = self.asked.lock().expect("no panic");
        assert_eq!(asked.len(), 1);
        asked[0].clone()
    }

    /// Waits until so many answers were cancelled.
    pub async fn cancelled(&self, count: u32) {
        for _ in 0..200 {
            if self.cancelled.load(Ordering::SeqCst) >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} answers should have been cancelled");
    }

    /// Waits until so many texts are closed, and returns them.
    pub async fn closed(&self, count: usize) -> Vec<(String, Digest, Finish)> {
        for _ in 0..200 {
            let closed = self.closed.lock().expect("no panic").clone();
            if closed.len() >= count {
                return closed;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} texts should have been closed");
    }
}

impl InferenceEngine for Scripted {
    fn submit(&self, generation: Generation) -> Result<EngineAnswer, Refused> {
        if let Some(refused) = &self.script.refuse {
            return Err(refused.clone());
        }
        self.asked
            .lock()
            .expect("no panic")
            .push(generation.clone());
        let (updates, received) = mpsc::channel(64);
        let (control, controls) = mpsc::channel(8);
        let play = Play {
            script: self.script.clone(),
            generation,
            updates,
            controls,
            closed: self.closed.clone(),
        };
        let cancelled = self.cancelled.clone();
        tokio::spawn(async move {
            if play.run().await.is_none() {
                cancelled.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(EngineAnswer {
            updates: received,
            control,
        })
    }

    fn view(&self) -> PoolView {
        self.view.lock().expect("no panic").clone()
    }

    fn receipts(&self, id: String) -> BoxFuture<'static, Result<Vec<BatchedReceipt>, String>> {
        let all = self.receipts.lock().expect("no panic").clone();
        async move {
            match id == BROKEN_RECEIPT {
                true => Err("the store is broken".to_string()),
                // Under every name, so that it shows which ones are asked for.
                false => Ok(all),
            }
        }
        .boxed()
    }

    fn add_adapter(&self, folder: PathBuf) -> BoxFuture<'static, Result<Digest, String>> {
        let outcome = match folder.ends_with("bad") {
            true => Err("it has no adapter_config.json".to_string()),
            false => Ok(Digest::of(
                Domain::Blob,
                folder.as_os_str().as_encoded_bytes(),
            )),
        };
        self.loaded.lock().expect("no panic").push(folder);
        async move { outcome }.boxed()
    }

    fn remove_adapter(&self, adapter: Digest) -> BoxFuture<'static, Result<(), String>> {
        self.unloaded.lock().expect("no panic").push(adapter);
        async { Ok(()) }.boxed()
    }
}

/// One generation.
struct Play {
    script: Script,
    generation: Generation,
    updates: mpsc::Sender<Update>,
    controls: mpsc::Receiver<Control>,
    closed: Arc<Mutex<Vec<(String, Digest, Finish)>>>,
}

impl Play {
    /// Nothing, if nobody listens any more.
    async fn run(mut self) -> Option<()> {
        let spec = self.generation.spec.clone();
        for update in self.script.before.clone() {
            self.updates.send(update).await.ok()?;
        }
        if spec.prompt_logprobs.is_some() {
            let scored = spec.prompt[1..]
                .iter()
                .map(|token| scored(*token))
                .collect();
            self.updates.send(Update::Prompt(scored)).await.ok()?;
        }
        let mut answer = 0;
        if spec.max_tokens == 0 {
            return self.finish(Finish::Length, answer).await;
        }
        for token in self.script.tokens.clone() {
            tokio::time::sleep(self.script.pause).await;
            let token = match self.control(answer, token).await? {
                Some(token) => token,
                None => return self.finish(Finish::StopText, answer).await,
            };
            self.updates.send(Update::Token(scored(token))).await.ok()?;
            answer += 1;
            if spec.stop_tokens.contains(&token) {
                return self.finish(Finish::StopToken, answer).await;
            }
            if answer == spec.max_tokens {
                return self.finish(Finish::Length, answer).await;
            }
        }
        match self.script.end {
            End::Finish => self.finish(Finish::Length, answer).await,
            End::Vanish => Some(()),
            End::Wait => {
                self.updates.closed().await;
                None
            }
            End::Fail { retry } => {
                let update = Update::Failed {
                    reason: "a stage is lost, and no worker can take its place".to_string(),
                    retry,
                    usage: self.usage(answer),
                };
                self.updates.send(update).await.ok()
            }
        }
    }

    /// The next token: under a grammar, the script's if it is allowed, else the first allowed one.
    /// `None` where the answer is to end.
    async fn control(&mut self, answer: u32, token: u32) -> Option<Option<u32>> {
        if self.generation.spec.sampling.grammar.is_none() {
            return match self.controls.try_recv() {
                Ok(Control::Stop { .. }) => Some(None),
                Ok(other) => panic!("{other:?} without a grammar"),
                Err(_) => Some(Some(token)),
            };
        }
        match self.controls.recv().await? {
            Control::Stop { answer: at, finish } => {
                assert_eq!(finish, Finish::Grammar);
                assert_eq!(at, answer);
                Some(None)
            }
            Control::Allow { answer: at, tokens } => {
                assert_eq!(at, answer);
                let allows = |id: &u32| tokens[*id as usize / 8] >> (id % 8) & 1 == 1;
                let first = || (0..tokens.len() as u32 * 8).find(allows);
                let token = Some(token).filter(allows).or_else(first);
                Some(Some(token.expect("some token is allowed")))
            }
            Control::Close { .. } => panic!("closed before the end"),
        }
    }

    fn usage(&self, answer: u32) -> Usage {
        Usage {
            prompt: self.generation.spec.prompt.len() as u32,
            cached: 3,
            answer,
        }
    }

    async fn finish(mut self, finish: Finish, answer: u32) -> Option<()> {
        let usage = self.usage(answer);
        let update = Update::Finished { finish, usage };
        self.updates.send(update).await.ok()?;
        while let Some(control) = self.controls.recv().await {
            if let Control::Close { text, finish } = control {
                let closed = (self.generation.id.clone(), text, finish);
                self.closed.lock().expect("no panic").push(closed);
            }
        }
        Some(())
    }
}

/// Tokens that are almost certain, with a logprob as kernels compute it: `Z`, and the one after it.
const CERTAIN: [u32; 2] = [90, 91];

/// A token with a logprob that identifies it, and the adjacent ids as alternatives.
pub fn scored(token: u32) -> TokenLogprob {
    let logprob = |token: u32| match CERTAIN.contains(&token) {
        true => F32Bits::from(5.5e-8),
        false => F32Bits::from(-(token as f32) / 64.0),
    };
    TokenLogprob {
        token,
        logprob: logprob(token),
        top: vec![(token, logprob(token)), (token ^ 1, logprob(token ^ 1))],
    }
}
