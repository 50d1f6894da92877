//! Serving over real sockets, with make-believe stages: whatever happens to them, an answer is what
//! it is.

mod answers;
mod members;
mod pool;
mod receipts;

use std::time::{Duration, Instant};

use concord_coordinator::serving::{AnswerHandle, ModelService};
use concord_proto::serving::{BatchedReceipt, Control, Finish, Receipt, ServedModel};
use concord_proto::session::{Role, ToWorker};
use concord_proto::{Digest, Domain};
use pool::stage::Lie;
use pool::worker::{Nature, Wires, Worker};
use pool::{generation, ready, serve, served, until};

const ALWAYS: u64 = 1 << 32;

/// A pool, and its workers in the order in which they joined.
struct Pool {
    _folder: tempfile::TempDir,
    server: concord_coordinator::server::RunningServer,
    serving: ModelService,
    wires: Wires,
    workers: Vec<Worker>,
}

impl Pool {
    async fn start(stages: u32, workers: u8, audit_rate: u64) -> Self {
        Self::of(stages, vec![Nature::default(); workers.into()], audit_rate).await
    }

    async fn of(stages: u32, natures: Vec<Nature>, audit_rate: u64) -> Self {
        let workers = natures.iter().filter(|nature| nature.role == Role::Worker);
        let model = served(stages, workers.count() as u32, audit_rate);
        Self::with(model, natures).await
    }

    async fn with(model: ServedModel, natures: Vec<Nature>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (server, serving) = serve(folder.path(), model).await;
        let mut pool = Self {
            _folder: folder,
            server,
            serving,
            wires: Wires::default(),
            workers: Vec::new(),
        };
        for nature in natures {
            pool.join(nature);
        }
        ready(&pool.serving).await;
        pool
    }

    fn join(&mut self, nature: Nature) {
        let number = self.workers.len() as u8 + 1;
        let worker = Worker::start(&self.server.url(), number, &self.wires, nature);
        self.workers.push(worker);
    }

    /// The worker of a stage of the first pipeline.
    fn holder(&self, stage: usize) -> &Worker {
        let view = self.serving.view();
        let id = view.pipelines[0].stages[stage].worker;
        self.workers.iter().find(|worker| worker.id == id).unwrap()
    }

    fn submit(&self, number: u32, max_tokens: u32) -> AnswerHandle {
        let generation = generation(&self.serving, number, max_tokens);
        self.serving.submit(generation).unwrap()
    }

    /// Waits until `count` workers stand by.
    async fn stand_by(&self, count: usize) {
        until(&self.serving, "standing by", |serving| {
            let view = serving.view();
            let mut workers = view.workers.iter();
            workers
                .by_ref()
                .filter(|w| w.doing.starts_with("stands by"))
                .count()
                >= count
        })
        .await;
    }
}

fn close(answering: &AnswerHandle) {
    let text = Digest::of(Domain::Text, b"text");
    let finish = Finish::Length;
    let close = Control::Close { text, finish };
    answering.control.try_send(close).unwrap();
}

async fn receipt(pool: &Pool, id: &str) -> (BatchedReceipt, Receipt) {
    let start = Instant::now();
    loop {
        if let Some(signed) = pool.serving.receipts(id).await.unwrap().pop() {
            let receipt = signed.open().unwrap();
            return (signed, receipt);
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no receipt of {id}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn with(lie: Lie) -> Nature {
    Nature {
        lie,
        ..Nature::default()
    }
}

fn convicted(worker: &Worker) -> Option<String> {
    let heard = worker.heard.lock().unwrap();
    heard.iter().find_map(|message| match message {
        ToWorker::Refused { reason } => Some(reason.clone()),
        _ => None,
    })
}
