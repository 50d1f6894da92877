//! The gRPC methods.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use concord_proto::client::{ClientRequest, ClientResponse, Submission, WatchRequest};
use concord_proto::limits::CHUNK_BYTES;
use concord_proto::manifest::{DataManifest, ModelManifest, StateManifest};
use concord_proto::wire::coordinator_server::Coordinator;
use concord_proto::wire::{BlobAddress, Body, Chunk, Envelope, ending};
use concord_proto::{Digest, Domain, JobId, Keypair, PublicKey, Signed, canonical, link};
use concord_verify::training::bundle;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::access::PoolAccess;
use super::driver_event::DriverEvent;
use super::watch::{self, Watchers};
use super::{Storage, session};
use crate::blobs::BlobError;
use crate::core::{Asker, NewJob, Question, SessionId};
use crate::serving::ModelService;

/// Events on their way to one watcher.
const WATCH_MAX: usize = 64;

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the gRPC methods need.
pub(super) struct CoordinatorService {
    pub(super) key: Keypair,
    pub(super) driver: mpsc::Sender<DriverEvent>,
    pub(super) storage: Storage,
    pub(super) watchers: Watchers,
    /// Present if a model is served.
    pub(super) serving: Option<ModelService>,
    /// The number of the next session, from 0.
    pub(super) next_session: AtomicU64,
    /// Which keys may do what.
    pub(super) access: tokio::sync::watch::Receiver<PoolAccess>,
}

impl CoordinatorService {
    /// The client whose request it is.
    fn asker<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        let key = link::peer(request).key;
        let access = self.access.borrow();
        let is_admin = access.is_admin(&key);
        match access.takes_client(&key) {
            true => Ok(Asker { key, is_admin }),
            false => Err(unwanted(&key)),
        }
    }

    /// Refuses whoever has no business here at all.
    fn check_known<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let key = link::peer(request).key;
        // The referee of this process asks with the coordinator's own key.
        let is_known = key == self.key.public() || self.access.borrow().takes(&key);
        is_known.then_some(()).ok_or_else(|| unwanted(&key))
    }

    async fn ask(&self, by: Asker, question: Question) -> Result<ClientResponse, Status> {
        let stopped = || Status::unavailable("the coordinator stops");
        let (answer, answered) = oneshot::channel();
        let asked = self
            .driver
            .send(DriverEvent::Ask(by, question, answer))
            .await;
        asked.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())
    }

    /// Takes on a job once everything that it names is in the store.
    async fn submit(&self, by: Asker, submission: Submission) -> Result<ClientResponse, Status> {
        if let Err(why) = submission.spec.validate() {
            return Ok(ClientResponse::Refused(why.to_string()));
        }
        match self.manifests(by, submission).await {
            Ok(new) => self.ask(by, Question::Submit(Box::new(new))).await,
            Err(error @ (BlobError::Missing(_) | BlobError::NotManifest { .. })) => {
                Ok(ClientResponse::Refused(error.to_string()))
            }
            Err(error) => Err(status(&error)),
        }
    }

    async fn manifests(&self, by: Asker, submission: Submission) -> Result<NewJob, BlobError> {
        let spec = &submission.spec;
        let model: ModelManifest = self.storage.blobs.manifest(&spec.model).await?;
        let data: DataManifest = self.storage.blobs.manifest(&spec.data).await?;
        let initial: StateManifest = self.storage.blobs.manifest(&spec.initial_state).await?;
        let tensors = model.tensors.iter().map(|tensor| tensor.blob);
        let states = initial.entries.iter();
        let states = states.flat_map(|e| [e.value, e.first_moment, e.second_moment]);
        let all: Vec<Digest> = tensors
            .chain(states)
            .chain(data.chunks.iter().copied())
            .collect();
        // They must still be there when the job is taken on.
        self.storage.blobs.claim(&all);
        self.storage
            .blobs
            .claim(&[spec.model, spec.data, spec.initial_state]);
        let missing = self.storage.blobs.missing(&all).await?;
        self.storage.blobs.disclaim(&missing);
        match missing.first() {
            Some(missing) => Err(BlobError::Missing(*missing)),
            None => Ok(NewJob {
                submission,
                submitters: vec![by.key],
                data,
                initial,
            }),
        }
    }

    /// Whether a client sees a job.
    async fn sees(&self, by: Asker, job: JobId) -> Result<bool, Status> {
        let seen = self.ask(by, Question::Jobs).await?;
        Ok(matches!(seen, ClientResponse::Jobs(jobs) if jobs.iter().any(|seen| seen.job == job)))
    }

    async fn bundle(&self, by: Asker, job: JobId) -> Result<ClientResponse, Status> {
        if !self.sees(by, job).await? {
            return Ok(ClientResponse::Refused(format!(
                "there is no job {job} of yours here"
            )));
        }
        let internal = |why: &dyn std::fmt::Display| Status::internal(why.to_string());
        let found = self.storage.store.bundle(&self.storage.blobs, job).await;
        match found.map_err(|why| internal(&why))? {
            Err(why) => Ok(ClientResponse::Refused(why)),
            Ok(found) => {
                let blob = bundle::to_blob(&found.files());
                // No job names it, and it is about to be fetched.
                self.storage.blobs.claim(&[Digest::of(Domain::Blob, &blob)]);
                let put = self.storage.blobs.put(blob).await;
                put.map(ClientResponse::Bundle).map_err(|why| status(&why))
            }
        }
    }
}

#[tonic::async_trait]
impl Coordinator for CoordinatorService {
    type SessionStream = Out<Envelope>;
    type WatchStream = Out<Body>;
    type GetBlobStream = Out<Chunk>;
    type LaneStream = Out<Body>;

    async fn lane(
        &self,
        request: Request<Streaming<Body>>,
    ) -> Result<Response<Self::LaneStream>, Status> {
        self.check_known(&request)?;
        let Some(serving) = &self.serving else {
            return Err(Status::failed_precondition("no model is served here"));
        };
        let peer = link::peer(&request).key;
        let messages = serving.stage_streams().open(peer, request.into_inner());
        Ok(Response::new(messages))
    }

    async fn session(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let (messages, waiting) = mpsc::channel(session::MESSAGES_MAX);
        let driver = self.driver.clone();
        let peer = link::peer(&request).key;
        tokio::spawn(session::read(
            (session, peer, self.access.clone()),
            request.into_inner(),
            messages,
            driver,
        ));
        let key = self.key.clone();
        let envelopes = ReceiverStream::new(waiting)
            .map(move |message| Ok(Envelope::from(Signed::new(&key, &message))));
        Ok(Response::new(Box::pin(envelopes)))
    }

    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let by = self.asker(&request)?;
        let asked = canonical::decode(&request.into_inner().bytes);
        let asked: ClientRequest = asked.map_err(|why| invalid(&why))?;
        let response = match asked {
            ClientRequest::MissingBlobs(blobs) => {
                // Claimed first, so that none is deleted between the check and the answer.
                self.storage.blobs.claim(&blobs);
                let missing = self.storage.blobs.missing(&blobs).await;
                let missing = missing.map_err(|why| status(&why))?;
                self.storage.blobs.disclaim(&missing);
                ClientResponse::MissingBlobs(missing)
            }
            ClientRequest::Submit(submission) => self.submit(by, *submission).await?,
            ClientRequest::Jobs => self.ask(by, Question::Jobs).await?,
            ClientRequest::Status => self.ask(by, Question::Status).await?,
            ClientRequest::Cancel(job) => self.ask(by, Question::Cancel(job)).await?,
            ClientRequest::Bundle(job) => self.bundle(by, job).await?,
            ClientRequest::Fetched { job, steps } => {
                self.ask(by, Question::Fetched { job, steps }).await?
            }
        };
        let bytes = canonical::encode(&response);
        Ok(Response::new(Body { bytes }))
    }

    async fn watch(&self, request: Request<Body>) -> Result<Response<Self::WatchStream>, Status> {
        let by = self.asker(&request)?;
        let asked = canonical::decode(&request.into_inner().bytes);
        let asked: WatchRequest = asked.map_err(|why| invalid(&why))?;
        if !self.sees(by, asked.job).await? {
            let words = format!("there is no job {} of yours here", asked.job);
            return Err(Status::not_found(words));
        }
        let (to, events) = mpsc::channel(WATCH_MAX);
        let (watchers, store) = (self.watchers.clone(), self.storage.store.clone());
        tokio::spawn(watch::replay(watchers, store, asked.job, asked.from, to));
        // A client that is let in no more hears nothing more.
        let access = self.access.clone();
        let events = ReceiverStream::new(events);
        let events = events.take_while(move |_| {
            let goes_on = access.borrow().takes_client(&by.key);
            std::future::ready(goes_on)
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_blob(
        &self,
        request: Request<BlobAddress>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        self.check_known(&request)?;
        let bytes = request.into_inner().digest.try_into();
        let address = bytes.map_err(|_| invalid(&"an address is not 32 bytes"))?;
        let pieces = self.storage.blobs.get(&Digest(address)).await;
        let chunks = pieces
            .map_err(|why| status(&why))?
            .map(|piece| piece.map(|data| Chunk { data }).map_err(|why| status(&why)));
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<BlobAddress>, Status> {
        self.check_known(&request)?;
        let pieces = request.into_inner().map(|chunk| match chunk {
            Ok(chunk) if chunk.data.len() <= CHUNK_BYTES => Ok(chunk.data),
            Ok(chunk) => Err(format!("a piece of {} bytes", chunk.data.len())),
            Err(status) => Err(ending(&status)),
        });
        let address = self.storage.blobs.put_stream(pieces).await;
        let digest = address.map_err(|why| status(&why))?.0.to_vec();
        Ok(Response::new(BlobAddress { digest }))
    }
}

fn unwanted(key: &PublicKey) -> Status {
    Status::permission_denied(format!(
        "this coordinator takes the keys alone that its operator has listed, and yours is not \
         among them: {key}"
    ))
}

fn invalid(why: &dyn std::fmt::Display) -> Status {
    Status::invalid_argument(why.to_string())
}

fn status(error: &BlobError) -> Status {
    let words = error.to_string();
    match error {
        BlobError::Missing(_) => Status::not_found(words),
        BlobError::Full(_) => Status::resource_exhausted(words),
        BlobError::TooLong(_) | BlobError::Broken(_) => Status::invalid_argument(words),
        BlobError::Damaged(_) => Status::data_loss(words),
        BlobError::NotManifest { .. } | BlobError::Linked { .. } | BlobError::Store { .. } => {
            Status::internal(words)
        }
    }
}
